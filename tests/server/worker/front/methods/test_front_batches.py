"""Parts of one request: side by side, and all of them or none."""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from tests.server.worker.asking import IMAGE, similar
from tests.server.worker.messages import encoded
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Fronted, Loop

from tectum.v1 import errors_pb2
from tectum_core.image import decode
from tectum_server.worker.failure import Failure
from tectum_server.worker.front import images as reading
from tectum_server.worker.front.methods.batches import together
from tectum_server.worker.jobs import EmbedTexts, Job, JobResult, ModelEntry, Renewal

FULL = Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, "full")


async def test_once_a_part_has_failed_the_others_are_withdrawn_before_it_is_told() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waiting")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise FULL

    with pytest.raises(Failure) as caught:
        await together(wait(), fail(), wait())

    assert caught.value is FULL
    assert ended == ["waiting"] * 2


async def test_parts_that_succeed_have_all_been_done() -> None:
    done = []

    async def part(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    await together(part(1), part(2))

    assert sorted(done) == [1, 2]


class Halved(ScriptedEngine):
    """Refuses texts, holds everything else, and knows what was withdrawn."""

    def __init__(self, loop: Loop, entries: Mapping[str, ModelEntry]) -> None:
        super().__init__(loop, entries)
        self.withdrawn: queue.Queue[Job] = queue.Queue()

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        """As jobs.Engine."""
        if isinstance(job.operation, EmbedTexts):
            await asyncio.sleep(0)  # the pictures are on their way by then
            raise FULL
        try:
            return await super().submit(job)
        except asyncio.CancelledError:
            self.withdrawn.put(job)
            raise


def test_where_texts_are_refused_the_engine_computes_no_pictures_either(
    loop: Loop, entries: Mapping[str, ModelEntry]
) -> None:
    engine = Halved(loop, entries)
    front = Fronted(loop, engine)

    told = front.client.refused(
        "ComputeSimilarity", similar([{"image": IMAGE}] * 3, [{"text": "open"}])
    )

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert len(engine.withdrawn.get(timeout=30).items) == 3
    front.close()


def test_pictures_to_compare_are_read_side_by_side(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)

    def wait(*given: Any, **options: Any) -> Any:
        both.wait(timeout=30)
        return decode(*given, **options)

    monkeypatch.setattr(reading, "decode", wait)
    engine.answers(zeros)
    file = encoded(np.zeros((8, 8, 3), np.uint8))

    answer = fronted(decode_threads=2).client.ask(
        "ComputeSimilarity", similar([{"image": file}], [{"image": file}])
    )

    assert not answer.errors
