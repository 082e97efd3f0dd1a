"""Newer content for a job that waits, as a test has it."""

from __future__ import annotations

import asyncio

from tectum_server.worker.jobs import Content, Item

FOREVER = 1e6


class Source:
    """A jobs.Renewal that gives what it was told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.settlements: list[bool] = []
        self.withdrawn = 0
        self.fails = False
        self.patient: bool | None = None
        """How it was asked last."""
        self.takes: float | None = None
        """Not None: what is newer takes a while, also where it is asked for once."""
        self._news: asyncio.Queue[Content] = asyncio.Queue()
        self._settled = asyncio.Event()

    def has(self, *items: Item, until: float = FOREVER) -> None:
        """There is something newer, of use until then."""
        self._news.put_nowait(Content(items, until))

    async def has_settled(self, *items: Item, until: float = FOREVER) -> bool:
        """There is something newer; wait for what becomes of it."""
        self._settled.clear()
        self.has(*items, until=until)
        await self._settled.wait()
        return self.settlements[-1]

    async def newest(self, *, patient: bool) -> Content | None:
        """As jobs.Renewal."""
        self.patient = patient
        self.asked.set()
        if self.fails:
            raise ZeroDivisionError("no such camera")
        if not patient and self.takes is None and self._news.empty():
            return None
        try:
            return await self._news.get()
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise

    def settled(self, taken: bool) -> None:
        """As jobs.Renewal."""
        self.settlements.append(taken)
        self._settled.set()
