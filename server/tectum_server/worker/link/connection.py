"""What a front knows of one connection to an engine; a new engine gets a new one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from numpy.typing import NDArray

from tectum_server.worker.jobs import Item, JobResult, ModelEntry
from tectum_server.worker.link.arena import Arena
from tectum_server.worker.link.arrays import ArrayRef, place, write
from tectum_server.worker.link.beating import PATIENCE
from tectum_server.worker.link.channel import Channel
from tectum_server.worker.link.messages import FromEngine, FromFront, Loaded, SubmitItem
from tectum_server.worker.link.renewing import Offering
from tectum_server.worker.link.segment import Segment
from tectum_server.worker.outlook import Outlook
from tectum_server.worker.pulse import Pulse

__all__ = ["Connection"]


class Connection:
    """Its segments, what is in flight on it, and what the engine has told.

    Args:
        channel: where messages go.
        requests, responses: the memory that both ends have.
    """

    def __init__(
        self, channel: Channel[FromEngine, FromFront], requests: Segment, responses: Segment
    ) -> None:
        self.channel = channel
        self.requests = requests
        self.responses = responses
        self.arena = Arena(requests.size)
        self.waiting: dict[int, asyncio.Future[JobResult | Loaded]] = {}
        self.offering: dict[int, Offering] = {}
        self.models: dict[str, ModelEntry] = {}
        """As the engine told them last, whether it is heard of or not."""
        self.start_seconds: float | None = None
        """What the engine's start took, as in `messages.Catalogue`."""
        self.outlook: Outlook | None = None
        """What the engine last told of what it has to do."""
        self.pulse = Pulse(PATIENCE)
        self._spans: dict[int, list[int]] = {}
        """Of each request: where what it has lies, and then what it was offered."""

    def pack(self, request: int, items: Sequence[Item]) -> tuple[SubmitItem, ...] | None:
        """Write items where the engine reads them; None if there is no room now.

        The space comes back with the answer, whoever still waits for that.
        """
        placed = self._place(request, items)
        if placed is None:
            return None
        write(*placed, self.requests)
        return _submitted(items, placed[1])

    async def pack_beside(
        self, request: int, items: Sequence[Item], thread: Executor
    ) -> tuple[SubmitItem, ...] | None:
        """The same, where what is copied would keep the event loop: a thread does that.

        Whoever is cancelled meanwhile has nothing written; the space comes back once the thread
        is done with it.
        """
        placed = self._place(request, items)
        if placed is None:
            return None
        writing = asyncio.get_running_loop().run_in_executor(thread, write, *placed, self.requests)
        try:
            await asyncio.shield(writing)
        except BaseException:
            writing.add_done_callback(lambda _: self.release(request))
            raise
        return _submitted(items, placed[1])

    def _place(
        self, request: int, items: Sequence[Item]
    ) -> tuple[list[NDArray[Any]], list[ArrayRef]] | None:
        """The items' arrays, and where they go; None if there is no room now."""
        arrays = [array for item in items for array in item.arrays]
        placed = place(arrays, self.arena)
        if placed is None:
            return None
        span, refs = placed
        self._spans.setdefault(request, []).append(span.offset)
        return arrays, refs

    def settle(self, request: int, taken: bool) -> None:
        """Give back the space of what a request was offered, or of what that took the place of."""
        spans = self._spans.get(request, [])
        if len(spans) > 1:
            self.arena.release(spans.pop(0 if taken else 1))
        if request in self.offering:
            self.offering[request].settle(taken)

    def release(self, request: int) -> None:
        """Give back the space that a request's arrays took, if it took some."""
        for offset in self._spans.pop(request, []):
            self.arena.release(offset)


def _submitted(items: Sequence[Item], refs: Sequence[ArrayRef]) -> tuple[SubmitItem, ...]:
    """Items as the engine is told of them."""
    rest = iter(refs)
    return tuple(
        SubmitItem(tuple(itertools.islice(rest, len(item.arrays))), item.text, item.operation)
        for item in items
    )
