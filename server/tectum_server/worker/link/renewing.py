"""Both ends of keeping a waiting job's content new: what is asked for, and what is heard of it.

The engine's end says Due whenever it wants Newer items, once for each; the front's end hands over
what there is, and hears what became of it. Knows neither sockets nor shared memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from tectum_server.worker.jobs import Content, Renewal

__all__ = ["Offering", "Requested"]

_log = logging.getLogger(__name__)


class Offering:
    """The front's end, for one job.

    Args:
        renewal: where newer content is from.
        send: sends it, or that there is none; whether it could.
    """

    def __init__(self, renewal: Renewal, send: Callable[[Content | None], bool]) -> None:
        self._renewal = renewal
        self._send = send
        self._sent = False
        """Whether the engine has something of which it has said nothing yet."""
        self._task: asyncio.Task[None] | None = None

    def begin(self, *, patient: bool) -> None:
        """The job is due: offer what is newer, once there is something or as things are now."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._offer(patient=patient))

    def settle(self, taken: bool) -> None:
        """What the engine did with what was sent last."""
        if self._sent:
            self._sent = False
            self._renewal.settled(taken)

    async def close(self) -> None:
        """Offer no more; return once nothing is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.settle(taken=False)

    async def _offer(self, *, patient: bool) -> None:
        content: Content | None = None
        try:
            content = await self._renewal.newest(patient=patient)
        except Exception:
            _log.exception("newer content cannot be had; the job runs with what it has")
        if content is not None:
            self._sent = True
            if self._send(content):
                return
            self.settle(taken=False)
        self._send(None)  # nothing, too, is an answer, and waited for


class Requested:
    """The engine's end, for one job: a jobs.Renewal whose content comes over the link.

    Args:
        due: tells the front that what is newer is wanted, and whether that can be waited for.
        settle: tells it what became of what came last.
    """

    def __init__(self, due: Callable[[bool], None], settle: Callable[[bool], None]) -> None:
        self._due = due
        self._settle = settle
        self._coming: asyncio.Future[Content | None] | None = None

    def hear(self, content: Content | None) -> None:
        """Content from the front; None: there is nothing newer."""
        if self._coming is not None and not self._coming.done():
            self._coming.set_result(content)
        elif content is not None:
            self._settle(False)

    async def newest(self, *, patient: bool) -> Content | None:
        """As jobs.Renewal.newest."""
        self._coming = asyncio.get_running_loop().create_future()
        self._due(patient)
        try:
            return await self._coming
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
                if self._coming.result() is not None:
                    self._settle(False)  # it came, and will not be looked at
            raise

    def settled(self, taken: bool) -> None:
        """As jobs.Renewal.settled."""
        self._coming = None
        self._settle(taken)
