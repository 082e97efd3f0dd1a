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

    def begin(self) -> None:
        """The job is due: offer what is newer, from now on."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._offer())

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
            while True:
                items = await self._renewal.newest()
                self._settled.clear()
                self._sent = True
                if not self._send(items):
                    self.settle(taken=False)
                    return
                await self._settled.wait()
        except Exception:
            _log.exception("newer content cannot be had; the job runs with what it has")


class Requested:
    """The engine's end, for one job: a jobs.Renewal whose content comes over the link.

    Args:
        due: tells the front that what is newer is wanted.
        settle: tells it what became of what came last.
    """

    def __init__(self, due: Callable[[], None], settle: Callable[[bool], None]) -> None:
        self._due = due
        self._settle = settle
        self._told = False
        self._coming: asyncio.Future[tuple[Item, ...]] | None = None

    def hear(self, items: tuple[Item, ...]) -> None:
        """Items from the front."""
        if self._coming is None or self._coming.done():
            self._settle(False)
        else:
            self._coming.set_result(items)

    async def newest(self) -> tuple[Item, ...]:
        """As jobs.Renewal.newest."""
        self._coming = asyncio.get_running_loop().create_future()
        if not self._told:
            self._told = True
            self._due()
        try:
            return await self._coming
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
                self._coming.result()
                self._settle(False)  # it came, and will not be looked at
            raise

    def settled(self, taken: bool) -> None:
        """As jobs.Renewal.settled."""
        self._coming = None
        self._settle(taken)
