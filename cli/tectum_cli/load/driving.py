"""Ask, keep time, and write down what came of each call.

**Open loop**: calls come when they come, whether or not earlier ones were answered, and each one's
time counts from when it was meant to come. A driver that falls behind, or a server that stalls,
so delays no call unseen ("coordinated omission"). **Closed loop**: so many callers, each with one
call at a time, as fast as answers come; it measures capacity, and says little of waiting.

Knows nothing of what it asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tectum_cli.load.traffic import Question

__all__ = ["Answer", "Ask", "Outcome", "Result", "closed_loop", "open_loop"]


class Outcome(StrEnum):
    """What became of a call."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """Shed before it ran; `reason` says why."""
    EXPIRED = "expired"
    """Its deadline passed first."""
    FAILED = "failed"
    """Anything else; `reason` says what."""
    UNSENT = "unsent"
    """The driver had too many calls open, or was so late that the deadline had passed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call came to, as whoever asked tells it."""

    outcome: Outcome
    reason: str = ""
    queue: float | None = None
    """Seconds, as the server tells them, as are the next three. None: it does not."""
    decode: float | None = None
    compute: float | None = None
    total: float | None = None
    batch: int | None = None
    """Items computed together."""


class Ask(Protocol):
    """Makes one call and says what it came to; never raises for what a server may answer."""

    async def __call__(self, question: Question, left: float | None, /) -> Answer:
        """Ask.

        Args:
            question: what.
            left: seconds until the answer is worthless. None: any.
        """


@dataclass(frozen=True, slots=True)
class Result:
    """One call, from when it was meant to come."""

    question: Question
    at: float
    """Seconds from the start when it was meant to be sent."""
    late: float
    """Seconds after that when the driver did send it."""
    took: float
    """Seconds from when it was meant to be sent until it ended."""
    answer: Answer

    @property
    def answered(self) -> bool:
        """Whenever that was."""
        return self.answer.outcome is Outcome.ANSWERED

    @property
    def in_time(self) -> bool:
        """Answered, and not after its deadline."""
        deadline = self.question.deadline
        return self.answered and (deadline is None or self.took <= deadline)


Seen = Callable[[float, int], None]
"""Told how far it is, in seconds, and how many calls are open."""


def _unseen(_at: float, _open: int) -> None:
    """Nobody looks."""


async def open_loop(
    arrivals: Iterable[float],
    draw: Callable[[], Question],
    ask: Ask,
    most_open: int,
    seen: Seen = _unseen,
) -> list[Result]:
    """Send each call at its time, and wait for all of them.

    Args:
        arrivals: seconds from now, in order.
        draw: the next call.
        ask: makes it.
        most_open: calls under way at once; beyond that they are `UNSENT`.
        seen: told at each arrival.

    Returns:
        What came of each, in the order in which they ended. Cancelled: of those that had ended.
    """
    started, results, opened = time.perf_counter(), list[Result](), 0

    async def one(question: Question, at: float) -> None:
        nonlocal opened
        opened += 1
        try:
            results.append(await _asked(ask, question, at, started))
        finally:
            opened -= 1

    with suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            for at in arrivals:
                # Always a turn for the loop, or a driver that is late would starve its own answers.
                await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
                question = draw()
                if opened < most_open:
                    group.create_task(one(question, at))
                else:
                    late = time.perf_counter() - started - at
                    unsent = Answer(Outcome.UNSENT, f"{most_open} calls open")
                    results.append(Result(question, at, late, late, unsent))
                seen(at, opened)
    return results


async def closed_loop(
    draw: Callable[[], Question],
    ask: Ask,
    callers: int,
    seconds: float,
    seen: Seen = _unseen,
) -> list[Result]:
    """So many callers, each of which asks again when it has its answer.

    One that was refused waits 10 ms: a caller that asks again at once would measure refusals.

    Args:
        draw: the next call.
        ask: makes it.
        callers: at once.
        seconds: after which none asks again.
        seen: told at each answer.

    Returns:
        As `open_loop`; `at` is when a call was sent.
    """
    started, results = time.perf_counter(), list[Result]()

    async def caller() -> None:
        while (at := time.perf_counter() - started) < seconds:
            results.append(result := await _asked(ask, draw(), at, started))
            seen(at, callers)
            if result.answer.outcome is not Outcome.ANSWERED:
                await asyncio.sleep(0.01)

    with suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
    return results


async def _asked(ask: Ask, question: Question, at: float, started: float) -> Result:
    late = time.perf_counter() - started - at
    left = None if question.deadline is None else question.deadline - late
    if left is not None and left <= 0:
        answer = Answer(Outcome.UNSENT, "the driver was late")
    else:
        answer = await ask(question, left)
    return Result(question, at, late, time.perf_counter() - started - at, answer)
