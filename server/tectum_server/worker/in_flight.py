"""A count of what is under way, and a way to wait until nothing is: what draining needs."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["InFlight"]


class InFlight:
    """`with in_flight:` around each piece of work; `await in_flight.idle()` to drain."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self.count += 1
        self.begun += 1
        self._idle.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.count -= 1
        if not self.count:
            self._idle.set()

    async def idle(self) -> None:
        """Return once nothing is under way."""
        await self._idle.wait()
