"""Open and closed loops: every call is written down once, with the time it really waited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tectum import Priority
from tectum_cli.load.driving import Answer, Outcome, Result, closed_loop, open_loop
from tectum_cli.load.traffic import Question

ANSWERED = Answer(Outcome.ANSWERED)


def question(deadline: float | None = None) -> Question:
    return Question("embed_images", Priority.INTERACTIVE, deadline)


class Server:
    """Answers one call at a time, each after so many seconds."""

    def __init__(self, seconds: float, answer: Answer = ANSWERED) -> None:
        self.seconds, self.answer = seconds, answer
        self.busy, self.asked, self.most, self.open = asyncio.Lock(), 0, 0, 0

    async def __call__(self, question: Question, left: float | None) -> Answer:
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async with self.busy:
                await asyncio.sleep(self.seconds)
        finally:
            self.open -= 1
        return self.answer


@given(st.lists(st.floats(0, 0.02), max_size=30))
@settings(max_examples=20, deadline=None)
def test_every_call_is_written_down_once_with_its_time(gaps: list[float]) -> None:
    when = [sum(gaps[: place + 1]) for place in range(len(gaps))]

    results = asyncio.run(open_loop(when, question, Server(0.0), 1000))

    assert sorted(one.at for one in results) == when
    assert all(one.took >= one.late >= -1e-3 for one in results)
    assert all(one.in_time for one in results)


async def test_an_open_loop_counts_the_time_that_a_call_waited_for_others() -> None:
    results = await open_loop([0.0] * 5, question, Server(0.02), 1000)

    assert len(results) == 5
    assert max(one.took for one in results) >= 0.1


async def test_a_stall_of_the_driver_itself_is_in_every_latency() -> None:
    loop = asyncio.get_running_loop()

    async def stalls(question: Question, left: float | None) -> Answer:
        if not stalled:
            stalled.append(loop.time())
            time.sleep(0.1)  # noqa: ASYNC251 - the stall
        return ANSWERED

    stalled = list[float]()

    results = await open_loop([0.0, 0.01, 0.02], question, stalls, 1000)

    assert [one.took > 0.07 for one in results] == [True] * 3
    assert max(one.late for one in results) > 0.07


async def test_calls_beyond_the_most_open_are_not_sent_and_said_to_be() -> None:
    server = Server(0.02)

    results = await open_loop([0.0] * 10, question, server, 3)

    unsent = [one for one in results if one.answer.outcome is Outcome.UNSENT]
    assert (server.most, server.asked, len(unsent)) == (3, 3, 7)
    assert {one.answer.reason for one in unsent} == {"3 calls open"}
    assert not any(one.in_time for one in unsent)


async def test_a_call_whose_deadline_passed_before_it_could_be_sent_is_not_sent() -> None:
    server = Server(0.0)

    results = await open_loop([-1.0], lambda: question(0.5), server, 10)

    assert [one.answer.outcome for one in results] == [Outcome.UNSENT]
    assert server.asked == 0


async def test_the_server_is_told_what_is_left_of_the_deadline() -> None:
    left_of = list[float | None]()

    async def ask(question: Question, left: float | None) -> Answer:
        left_of.append(left)
        return ANSWERED

    await open_loop([-0.2], lambda: question(10.0), ask, 10)

    assert left_of[0] is not None
    assert 9.0 < left_of[0] <= 9.8


@pytest.mark.parametrize(
    ("took", "deadline", "outcome", "in_time"),
    [
        (0.5, 0.5, Outcome.ANSWERED, True),
        (0.51, 0.5, Outcome.ANSWERED, False),
        (9.0, None, Outcome.ANSWERED, True),
        (0.1, 0.5, Outcome.REFUSED, False),
    ],
)
def test_in_time_is_answered_and_not_after_the_deadline(
    took: float, deadline: float | None, outcome: Outcome, in_time: bool
) -> None:
    assert Result(question(deadline), 0.0, 0.0, took, Answer(outcome)).in_time is in_time


async def test_a_closed_loop_has_one_call_open_for_each_caller() -> None:
    server = Server(0.005)

    results = await closed_loop(question, server, 4, 0.2)

    assert server.most == 4
    assert len(results) == server.asked >= 8
    assert all(one.at < 0.2 for one in results)


async def test_a_refused_caller_does_not_ask_again_at_once() -> None:
    refusing = Server(0.0, Answer(Outcome.REFUSED, "QUEUE_FULL"))

    results = await closed_loop(question, refusing, 1, 0.1)

    assert 1 <= len(results) <= 11


Loop = Callable[[Server], Coroutine[Any, Any, list[Result]]]


@pytest.mark.parametrize(
    "loop",
    [
        lambda server: open_loop([0.0, 0.01, 60.0], question, server, 10),
        lambda server: closed_loop(question, server, 2, 60.0),
    ],
)
async def test_one_that_is_ended_early_tells_what_it_has_and_leaves_nothing_open(
    loop: Loop,
) -> None:
    server = Server(0.005)
    task = asyncio.create_task(loop(server))
    while server.asked < 2:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)

    task.cancel()
    results = await task

    assert results
    assert all(one.answer is ANSWERED for one in results)
    assert server.open == 0


async def test_a_fault_of_the_one_who_asks_is_raised() -> None:
    async def broken(question: Question, left: float | None) -> Answer:
        raise RuntimeError("a fault")

    with pytest.raises(ExceptionGroup):
        await open_loop([0.0], question, broken, 10)
