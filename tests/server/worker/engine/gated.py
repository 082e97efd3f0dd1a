"""A scheduler before an engine that waits to be let go, on a clock that passes when told."""

import asyncio
import threading
import types
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from tectum.v1 import errors_pb2
from tectum_core.predictor import CapabilityMissing, Predictor
from tectum_core.tokenizer import EncodedText
from tectum_server.worker.engine.replay.recording import Recorder
from tectum_server.worker.engine.scheduling.scheduler import Scheduler
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedTexts,
    Item,
    ItemOutput,
    Job,
    JobResult,
    Renewal,
    Sequel,
)
from tectum_server.worker.jobs import Priority as P
from tectum_server.worker.metrics import EngineMetrics

FOREVER = 1e6


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class GatedPredictor:
    """Embeds texts as their lengths, one batch for each time the gate is opened."""

    def __init__(self, clock: Clock) -> None:
        self.bundle = types.SimpleNamespace(version="v1")
        self.device = torch.device("cpu")
        self.lane: object = None
        self.batches: list[list[str]] = []
        self.free = False
        self.takes = 0.0
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Queue[int] = asyncio.Queue()
        self._gate = threading.Semaphore(0)

    def encode(self, text: str) -> EncodedText:
        return EncodedText(ids=[], tokens=[text], content=[])

    def embed_encoded(self, encoded: Sequence[EncodedText]) -> NDArray[np.float32]:
        texts = [text.tokens[0] for text in encoded]
        self.batches.append(texts)
        self._loop.call_soon_threadsafe(self._begun.put_nowait, len(texts))
        if not self.free:
            self._gate.acquire()
        self._clock.now += self.takes
        for text in texts:
            if text == "poison":
                raise ZeroDivisionError("poison")
            if text == "device":
                raise torch.AcceleratorError("device-side assert triggered")
            if text == "unable":
                raise CapabilityMissing("this model has no such part")
            if text == "wrong":
                reason = errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
                raise Failure(reason, "no such place", "mask.hidden")
        return np.array([[len(text)] for text in texts], np.float32)

    async def begun(self) -> int:
        """Wait until the next batch runs; gives its size."""
        return await self._begun.get()

    def let_go(self) -> None:
        """Finish the batch that runs."""
        self._gate.release()

    def open(self) -> None:
        """Finish it, and hold none back from now on."""
        self.free = True
        self._gate.release()


class Rig:
    """A scheduler before a gated predictor."""

    def __init__(
        self,
        max_queued: int = 100,
        max_batch: int = 32,
        recorder: Recorder | None = None,
        on_failure: Callable[[], None] = lambda: None,
        compute_timeout: float = 60.0,
    ) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        metrics = EngineMetrics(self.registry)
        self.scheduler = Scheduler(
            max_queued,
            max_batch,
            metrics,
            self.clock,
            compute_timeout=compute_timeout,
            recorder=recorder,
            on_failure=on_failure,
        )
        self.predictor = GatedPredictor(self.clock)
        self.scheduler.start()

    def submit(
        self,
        *texts: str,
        priority: P = P.INTERACTIVE,
        within: float = FOREVER,
        predictor: GatedPredictor | None = None,
        name: str = "",
        arrived: float | None = None,
        renewal: Renewal | None = None,
        sequel: Sequel | None = None,
        turn: float | None = None,
    ) -> asyncio.Task[JobResult]:
        items = tuple(Item(text=text) for text in texts)
        deadline = self.clock.now + within
        job = Job(
            "m",
            EmbedTexts(),
            items,
            priority,
            deadline,
            arrived,
            request_id=name,
            sequel=sequel,
            turn=turn,
        )
        serving = cast("Predictor", predictor or self.predictor)
        return asyncio.create_task(self.scheduler.submit(job, serving, renewal))

    async def busy(self) -> asyncio.Task[JobResult]:
        """Keep the engine occupied with one batch of its own."""
        task = self.submit("first")
        await self.predictor.begun()
        return task

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def lengths(result: JobResult) -> list[float]:
    return [float(o.arrays[0][0]) for o in result.outputs if isinstance(o, ItemOutput)]


async def refusal(task: asyncio.Task[JobResult]) -> Failure:
    with pytest.raises(Failure) as caught:
        await task
    return caught.value
