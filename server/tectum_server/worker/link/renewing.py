"""Both ends of keeping a waiting job's content new: what is offered, and what is heard of it.

The engine's end says Due and waits for Newer items; the front's end hands over what there is and
waits until that is Settled before it hands over more. Knows neither sockets nor shared memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from tectum_server.worker.jobs import Item, Renewal

__all__ = ["Offering", "Requested"]

_log = logging.getLogger(__name__)
_FAILED = "newer content cannot be had; the job runs with what it has"


class Offering:
    """The front's end, for one job.

    Args:
        renewal: where newer content is from.
        send: sends it; whether it could.
    """

    def __init__(self, renewal: Renewal, send: Callable[[tuple[Item, ...]], bool]) -> None:
        self._renewal = renewal
        self._send = send
        self._sent = False
        """Whether the engine has something of which it has said nothing yet."""
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, *, patient: bool) -> None:
        """The job is due: offer what is newer, from now on; or what there is now, once."""
        if self._task is None:
            work = self._offer() if patient else self._offer_once()
            self._task = asyncio.get_running_loop().create_task(work)

    def settle(self, taken: bool) -> None:
        """What the engine did with what was sent last."""
        if self._sent:
            # At once: the job's answer may come, and end this, before the task's next turn.
            self._sent = False
            self._renewal.settled(taken)
            if taken:
                self._settled.set()

    async def close(self) -> None:
        """Offer no more; return once nothing is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.settle(taken=False)

    async def _offer(self) -> None:
        try:
            while self._hand_over(await self._renewal.newest(patient=True)):
                await self._settled.wait()
        except Exception:
            _log.exception(_FAILED)

    async def _offer_once(self) -> None:
        items: tuple[Item, ...] = ()
        try:
            items = await self._renewal.newest(patient=False)
        except Exception:
            _log.exception(_FAILED)
        # Nothing, too, is an answer, and waited for.
        if not items or not self._hand_over(items):
            self._send(())

    def _hand_over(self, items: tuple[Item, ...]) -> bool:
        """Whether the engine has them, and will say what becomes of them."""
        self._settled.clear()
        self._sent = True
        if self._send(items):
            return True
        self.settle(taken=False)
        return False


class Requested:
    """The engine's end, for one job: a jobs.Renewal whose content comes over the link.

    Args:
        due: tells the front that what is newer is wanted, and whether that can be waited for.
        settle: tells it what became of what came last.
    """

    def __init__(self, due: Callable[[bool], None], settle: Callable[[bool], None]) -> None:
        self._due = due
        self._settle = settle
        self._told = False
        self._coming: asyncio.Future[tuple[Item, ...]] | None = None

    def hear(self, items: tuple[Item, ...]) -> None:
        """Items from the front; none: there is nothing newer."""
        if not items and (self._coming is None or self._coming.done()):
            return
        if self._coming is None or self._coming.done():
            self._settle(False)
        else:
            self._coming.set_result(items)

    async def newest(self, *, patient: bool) -> tuple[Item, ...]:
        """As jobs.Renewal.newest."""
        self._coming = asyncio.get_running_loop().create_future()
        if not self._told:
            self._told = True
            self._due(patient)
        try:
            return await self._coming
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
                if self._coming.result():
                    self._settle(False)  # it came, and will not be looked at
            raise

    def settled(self, taken: bool) -> None:
        """As jobs.Renewal.settled."""
        self._coming = None
        self._settle(taken)
