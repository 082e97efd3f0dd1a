"""Asks for newer content of what is about to run, so that it is computed from the newest there is.

A live camera's frame may wait for long where there are many of them. Whoever runs next is asked
shortly before the batch that runs should end. Where the next one is short, its members go on giving
what is newer until it begins; where it is long, each is asked once, for each newer frame costs a
decoding, and it waits a little for those that have not answered. Knows when to ask, and nothing of
what is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from tectum_server.worker.jobs import Content, Renewal

__all__ = ["Renewed", "ask_after", "asks_again", "freshen"]

_log = logging.getLogger(__name__)

_LONG_MS = 500.0
"""From so many milliseconds on a batch asks its members once, and waits for their answers."""
_WAITS = 0.05
"""Of what it takes, that it waits for them at most."""
_ASK_AT, _AHEAD_MS = 0.5, 250.0
"""From so much of a batch on, but not longer before its end, whoever runs next is asked. Costs are
medians, so that it may be over much earlier."""
_PACE = 0.1
"""Seconds between two answers of one job while another batch runs, which may take longer than was
expected."""
_OLD = 2 * _AHEAD_MS / 1000
"""Seconds after which a job that was asked once, and does not run yet, is asked anew."""


def asks_again(expected_ms: float | None) -> bool:
    """Whether the members of the batch that runs next are asked again and again until it does.

    Args:
        expected_ms: what the next one takes; None: nobody knows yet.
    """
    return expected_ms is None or expected_ms < _LONG_MS


def ask_after(expected_ms: float | None) -> float:
    """Seconds from a batch's beginning until whoever runs next is asked.

    Args:
        expected_ms: what the batch takes; None: nobody knows yet.
    """
    if expected_ms is None:
        return 0.0
    return max(_ASK_AT * expected_ms, expected_ms - _AHEAD_MS) / 1000


async def freshen(jobs: Sequence[Renewed], expected_ms: float | None, spare_ms: float) -> None:
    """Wait for the answers of a batch's jobs, if it is long enough for that; ask who was not asked.

    Args:
        jobs: of the batch.
        expected_ms: what it takes; None: nobody knows yet.
        spare_ms: what is left before somebody's answer would be too late.
    """
    if asks_again(expected_ms) or expected_ms is None or spare_ms <= 0:
        return
    asking = [task for job in jobs if (task := job.ask_once()) is not None]
    if asking:
        await asyncio.wait(asking, timeout=min(_WAITS * expected_ms, spare_ms) / 1000)


class Renewed:
    """A job's content, kept new from when it is asked for to its `close`.

    Args:
        renewal: where newer content is from; None: there is none, and nothing is ever asked.
        take: puts newer content in the job's place; whether it could.
    """

    def __init__(self, renewal: Renewal | None, take: Callable[[Content], bool]) -> None:
        self._renewal = renewal
        self._take = take
        self._asking: asyncio.Task[None] | None = None
        self._again = False
        self._old_from = 0.0

    def ask(self) -> None:
        """Ask for newer content, again and again, from now on."""
        self._begin(patient=True)

    def ask_once(self) -> asyncio.Task[None] | None:
        """Ask once, if it was not asked yet; None: there is no answer to wait for."""
        if self._asking is not None and self._asking.done() and time.monotonic() > self._old_from:
            self._asking = None  # others have gone first
        self._begin(patient=False)
        under_way = self._asking is not None and not (self._again or self._asking.done())
        return self._asking if under_way else None

    def end(self) -> None:
        """Ask no more: the job runs, or never will."""
        if self._asking is not None:
            self._asking.cancel()

    async def close(self) -> None:
        """The same, and return once nothing is under way."""
        self.end()
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)

    def _begin(self, *, patient: bool) -> None:
        if self._renewal is not None and self._asking is None:
            self._again = patient
            self._old_from = time.monotonic() + _OLD
            work = self._ask(self._renewal, patient=patient)
            self._asking = asyncio.get_running_loop().create_task(work)

    async def _ask(self, renewal: Renewal, *, patient: bool) -> None:
        try:
            while (content := await renewal.newest(patient=patient)) is not None:
                taken = self._take(content)
                renewal.settled(taken)
                if not (taken and patient):
                    return
                await asyncio.sleep(_PACE)
        except Exception:
            _log.exception("newer content cannot be had; the job runs with what it has")
