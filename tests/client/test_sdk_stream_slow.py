"""Who reads a stream more slowly than its camera hears of its newest frame, and its true age."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.client.fake_worker import FakeWorker
from tests.client.streams import SMALL, accepted, heard

import tectum

PATIENCE = 30.0


@pytest.fixture(params=["sync", "async"])
def open_stream(
    request: pytest.FixtureRequest, client: tectum.Client, aclient: tectum.AsyncClient
) -> Any:
    return client.stream if request.param == "sync" else aclient.stream


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def answered(stream: Any, worker: FakeWorker, count: int) -> None:
    """So many more frames, each once the worker has the one before."""
    for _ in range(count):
        stream.send(tectum.Frame(SMALL, captured_at=time.time()))
        sent = len(worker.frames) + 1
        await until(lambda sent=sent: len(worker.frames) == sent)  # type: ignore[misc]


async def test_a_reader_at_a_third_of_the_cameras_rate_hears_of_the_newest_frame_each_time(
    worker: FakeWorker, open_stream: Any
) -> None:
    stream = open_stream(embed=True)
    await accepted(stream)

    ids = []
    for turn in range(1, 9):
        await answered(stream, worker, 3)
        await until(lambda turn=turn: stream.unread == 2 * turn)  # type: ignore[misc]
        ids.append((await heard(stream)).frame_id)

    stream.finish()
    assert ids == list(range(2, 24, 3))


async def test_of_a_deeper_stream_as_many_answers_wait_in_order(
    worker: FakeWorker, open_stream: Any
) -> None:
    stream = open_stream(embed=True, depth=3)
    await accepted(stream)

    await answered(stream, worker, 9)
    await until(lambda: stream.unread == 6)

    assert [(await heard(stream)).frame_id for _ in range(3)] == [6, 7, 8]


@pytest.mark.parametrize("own_clock", [True, False])
async def test_a_reader_that_pauses_is_told_how_old_its_answer_is_by_then(
    worker: FakeWorker, open_stream: Any, own_clock: bool
) -> None:
    stream = open_stream(embed=True, own_clock=own_clock)
    await accepted(stream)
    captured = time.time()
    await answered(stream, worker, 2)
    await until(lambda: stream.unread == 1)
    has_come = time.time()
    await asyncio.sleep(0.5)

    pausing = time.time() - has_come
    result = await heard(stream)
    now = time.time()

    assert result.frame_id == 1
    assert pausing <= result.age + 0.01  # clocks tick apart
    assert result.age <= now - captured + 0.01


async def test_what_waits_when_a_stream_ends_is_still_taken_and_then_its_error(
    worker: FakeWorker, open_stream: Any
) -> None:
    stream = open_stream(embed=True)
    await accepted(stream)
    await answered(stream, worker, 2)
    await until(lambda: stream.unread == 1)
    worker.__exit__()
    await asyncio.sleep(0.1)

    assert (await heard(stream)).frame_id == 1
    with pytest.raises(tectum.TectumError):
        await heard(stream)
    with pytest.raises(tectum.TectumError):
        await heard(stream)
