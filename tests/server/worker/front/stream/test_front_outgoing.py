"""What a stream's client is told is true when it leaves, and little of it waits to."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.frames import OK, STALE, SUPERSEDED

from tectum.v1 import image_pb2, stream_pb2
from tectum_server.worker.front.call import Record
from tectum_server.worker.front.memory import Memory
from tectum_server.worker.front.stream.frames import Frame
from tectum_server.worker.front.stream.outgoing import Outgoing
from tectum_server.worker.metrics import FrontMetrics

PATIENCE = 30.0


class Client:
    """The other end of a stream: reads when the test says so."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.heard: list[stream_pb2.FrameResult] = []

    async def write(self, response: stream_pb2.StreamPerceptionResponse) -> None:
        """As a servicer's context; done once this was read."""
        told = stream_pb2.StreamPerceptionResponse()
        told.CopyFrom(response)
        await self.reads.wait()
        self.heard.append(told.result)


class Said:
    """A stream's outgoing side, and who reads it."""

    def __init__(self) -> None:
        self.client = Client()
        self.record = Record("StreamPerception", "a-1")
        calls: Any = SimpleNamespace(metrics=FrontMetrics(CollectorRegistry()))
        context: Any = self.client
        self.out = Outgoing(calls, context, self.record)
        self.sending = asyncio.create_task(self.out.send())

    async def read(self) -> list[stream_pb2.FrameResult]:
        """Everything that is said."""
        self.client.reads.set()
        await self.out.end()
        await asyncio.wait_for(self.sending, PATIENCE)
        return self.client.heard


@pytest.fixture
async def said() -> Said:
    return Said()


def frame(number: int, age: float = 0.0, lifespan: float = 60.0) -> Frame:
    """One that was captured so many seconds ago."""
    return Frame(
        frame_id=number,
        content=image_pb2.Image(),
        captured_at=time.time() - age,
        timed=True,
        expires=time.monotonic() + lifespan - age,
        memory=Memory(1).share(),
        lifespan=lifespan,
    )


def found(number: int) -> stream_pb2.FrameResult:
    """What the engine found of it."""
    result = stream_pb2.FrameResult(frame_id=number, status=OK)
    result.embedding.space_id = "a-space"
    return result


async def turns(count: int = 20) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_of_what_the_engine_found_two_wait_and_who_answers_waits_with_the_third(
    said: Said,
) -> None:
    answering = [asyncio.create_task(said.out.answer(found(n), frame(n))) for n in range(3)]
    await turns()
    done = [one.done() for one in answering]
    said.client.reads.set()
    await asyncio.gather(*answering)

    heard = await said.read()

    assert done == [True, True, False]
    assert [result.frame_id for result in heard] == [0, 1, 2]


async def test_frames_without_an_answer_are_told_while_answers_wait(said: Said) -> None:
    for number in range(2):
        await said.out.answer(found(number), frame(number))

    for number in range(2, 12):
        await asyncio.wait_for(said.out.without(frame(number), None), PATIENCE)

    heard = await said.read()
    assert [result.status for result in heard] == [OK] * 2 + [SUPERSEDED] * 10


async def test_what_waits_is_bounded_whatever_it_is(said: Said) -> None:
    async def superseded() -> None:
        for number in range(1000):
            await said.out.without(frame(number), None)
            told.append(number)

    told = list[int]()
    saying = asyncio.create_task(superseded())
    await turns(3000)
    waiting = len(told)

    said.client.reads.set()
    await asyncio.wait_for(saying, PATIENCE)
    heard = await said.read()

    assert waiting <= 65  # and one is being sent
    assert [result.frame_id for result in heard] == list(range(1000))


async def test_an_age_is_that_of_the_moment_when_its_answer_leaves(said: Said) -> None:
    first, second = frame(0), frame(1)
    await said.out.answer(found(0), first)
    await said.out.answer(found(1), second)
    await turns()
    second.captured_at -= 7.0  # so long its answer has waited behind the other

    heard = await said.read()

    assert heard[0].age.ToSeconds() < 7
    assert 7 <= heard[1].age.ToSeconds() < 7 + PATIENCE


async def test_an_answer_that_outlives_its_lifespan_while_it_waits_is_stale(said: Said) -> None:
    await said.out.answer(found(0), frame(0))
    await said.out.answer(found(1), frame(1, lifespan=0.05))
    await asyncio.sleep(0.05)

    heard = await said.read()

    assert [result.status for result in heard] == [OK, STALE]
    assert not heard[1].HasField("embedding")
    assert said.record.frames == {"ok": 1, "stale": 1}


async def test_what_the_engine_found_late_is_told_and_not_once_it_has_waited_as_long_again(
    said: Said,
) -> None:
    await said.out.answer(found(0), frame(0, age=70.0))
    await said.out.answer(found(1), frame(1, age=70.0, lifespan=0.05))
    await asyncio.sleep(0.05)

    heard = await said.read()

    assert [result.status for result in heard] == [OK, STALE]
