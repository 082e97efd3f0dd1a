"""Asks for newer content of what is about to run, so that it is computed from the newest there is.

Whoever runs next is asked from shortly before the batch that runs should end until it has. Where
the next one is short, its members go on giving what is newer until it begins; where it is long,
they are asked now and then, and once more as it begins, and it waits a little for those that have
not answered. Who is asked when, `asking` says; of what is asked for, nobody here knows anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from tectum_server.worker.engine.policy.asking import (
    NEW_MS,
    PACE_MS,
    Needs,
    affordable,
    again_after,
    ask_after,
    asks_again,
    keeps,
    waits,
)
from tectum_server.worker.jobs import Content, Renewal

__all__ = ["Ahead", "Renewed", "freshen"]

_log = logging.getLogger(__name__)

_LOOKS = 0.05
"""Seconds from one look at who runs next to the next one."""


async def freshen(
    jobs: Sequence[Renewed],
    expected_ms: float | None,
    spare_ms: float,
    ran_ms: float = 0.0,
    delayed: Callable[[float], None] = lambda _: None,
) -> None:
    """Ask a batch's jobs once more, if it is long enough for that, and wait a little for them.

    Args:
        jobs: of the batch.
        expected_ms: what it takes; None: nobody knows yet.
        spare_ms: what is left before somebody's answer would be too late.
        ran_ms: what the batch before it took.
        delayed: told how much later the batch begins, at most, milliseconds, if it waits.
    """
    waits_ms = waits(expected_ms, ran_ms, spare_ms)
    if not waits_ms:
        return
    for job in _to_ask(jobs, keeps(expected_ms), lambda _: NEW_MS):
        job.ask_once()
    asking = [job.under_way for job in jobs if job.under_way is not None]
    if asking:
        delayed(waits_ms)
        await asyncio.wait(asking, timeout=waits_ms / 1000)


class Renewed:
    """A job's content, kept new from when it is asked for to its `close`.

    Args:
        renewal: where newer content is from; None: there is none, and nothing is ever asked.
        take: puts newer content in the job's place; whether it could.
        needs: what is to be prepared of the job as it is now.
    """

    def __init__(
        self,
        renewal: Renewal | None,
        take: Callable[[Content], bool],
        needs: Callable[[], Needs] = Needs,
    ) -> None:
        self._renewal = renewal
        self._take = take
        self.needs = needs
        self._asking: asyncio.Task[None] | None = None
        self._again = self._over = False
        self._asked_at = 0.0
        self.took_ms = 0.0
        """Until it had answered, the last time."""

    @property
    def is_asked(self) -> bool:
        """Whether it was, or is being."""
        return self._asking is not None

    @property
    def under_way(self) -> asyncio.Task[None] | None:
        """That of which there is an answer to wait for."""
        waiting = self._asking is not None and not (self._again or self._asking.done())
        return self._asking if waiting else None

    def ask(self) -> None:
        """Ask for newer content, again and again, from now on."""
        self._begin(patient=True)

    def ask_once(self) -> None:
        """Ask once, now."""
        self._begin(patient=False)

    def due(self, after_ms: float) -> bool:
        """Whether it may be asked, and was not in so many milliseconds."""
        if self._renewal is None or self._over:
            return False
        if self._asking is None:
            return True
        return self._asking.done() and (time.monotonic() - self._asked_at) * 1000 >= after_ms

    def end(self) -> None:
        """Ask no more: the job runs, or never will."""
        self._over = True
        if self._asking is not None:
            self._asking.cancel()

    async def close(self) -> None:
        """The same, and return once nothing is under way."""
        self.end()
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)

    def _begin(self, *, patient: bool) -> None:
        if self._renewal is None or not self.due(0.0):
            return
        self._again, self._asked_at = patient, time.monotonic()
        work = self._ask(self._renewal, patient=patient)
        self._asking = asyncio.get_running_loop().create_task(work)

    async def _ask(self, renewal: Renewal, *, patient: bool) -> None:
        try:
            while (content := await renewal.newest(patient=patient)) is not None:
                taken = self._take(content)
                renewal.settled(taken)
                self._over = self._over or not taken
                if not (taken and patient):
                    break
                await asyncio.sleep(PACE_MS / 1000)
        except Exception:
            _log.exception("newer content cannot be had; the job runs with what it has")
            self._over = True
        if not patient:
            self.took_ms = (time.monotonic() - self._asked_at) * 1000


class Ahead:
    """Has whoever runs next kept new, while the last of the batches runs that were given.

    Args:
        coming: the jobs that run next, as things are, and what that takes, milliseconds; None:
            nobody knows yet.
    """

    def __init__(self, coming: Callable[[], tuple[Sequence[Renewed], float | None]]) -> None:
        self._coming = coming
        self._next: asyncio.TimerHandle | None = None
        self._since: float | None = None
        """Since when they are asked; None: not yet."""
        self._given: deque[float | None] = deque()
        """What the batches should take that have not ended, in order."""
        self._begun = self._ends = self._ended = 0.0
        """When the first of them began, the last should end, and one has."""
        self._ran = 0.0
        """Seconds that took."""

    def begin(self, expected_ms: float | None) -> None:
        """A batch is given which should take so long; None: nobody knows.

        It begins at once, or as the one ends that was given before.
        """
        if not self._given:
            self._begun = asyncio.get_running_loop().time()
        self._given.append(expected_ms)
        self._plan()

    def look(self) -> None:
        """Somebody has come; if others are asked already, so is he."""
        if self._since is not None:
            self._ask(asyncio.get_running_loop().time(), self._since)

    def end(self) -> None:
        """The first of them has ended."""
        self._ended = asyncio.get_running_loop().time()
        self._ran, self._begun = self._ended - self._begun, self._ended
        self._given.popleft()
        self._plan()

    @property
    def ran_ms(self) -> float:
        """What the batch took that has just ended; 0: there is none."""
        ago_ms = (asyncio.get_running_loop().time() - self._ended) * 1000
        return self._ran * 1000 if ago_ms < PACE_MS else 0.0

    def _plan(self) -> None:
        """Begin to ask when it is time to before the end of the last one; not, if there is none."""
        self._since = None
        if self._next is not None:
            self._next.cancel()
        if not self._given:
            return
        loop, last = asyncio.get_running_loop(), self._given[-1]
        begins = self._begun + sum(one or 0.0 for one in list(self._given)[:-1]) / 1000
        self._ends = begins + (last or 0.0) / 1000
        self._next = loop.call_at(begins + ask_after(last) / 1000, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(_LOOKS, self._look)
        now = loop.time()
        if self._since is None:
            self._since = now
        self._ask(now, self._since)

    def _ask(self, now: float, since: float) -> None:
        jobs, expected_ms = self._coming()
        again = asks_again(expected_ms)
        for_ms, left_ms = (now - since) * 1000, max(0.0, self._ends - now) * 1000
        spare_ms = left_ms + keeps(expected_ms)
        for job in _to_ask(jobs, spare_ms, lambda job: again_after(for_ms, job.took_ms, left_ms)):
            job.ask() if again and not job.needs().takes_ms else job.ask_once()


def _to_ask(
    jobs: Sequence[Renewed], spare_ms: float, after_ms: Callable[[Renewed], float]
) -> list[Renewed]:
    """Who was not asked yet, and of those who were so long ago whoever may be anew."""
    due = [job.due(after_ms(job)) for job in jobs]
    if not any(due):
        return []
    anew = affordable([job.needs() for job in jobs], due, spare_ms)
    return [job for job, may in zip(jobs, anew, strict=True) if may or not job.is_asked]
