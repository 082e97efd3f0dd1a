"""Which items are made ready for the engine before it takes them.

Pure bookkeeping, as `batching`. It is done in the order of service, but for who is owed to go
first, one at a time, and so many ahead of the engine at most. Where as many are prepared as may be,
the last of them in order gives its place to one that goes before it, and is prepared again in its
turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tectum_server.worker.engine.policy.line import Line, Waiting

__all__ = ["Begun", "Preparing"]


@dataclass(frozen=True, slots=True)
class Begun:
    """A preparation that begins."""

    item: int
    dropped: int | None = None
    """Whose preparation is given up for it; None: nobody's."""


class Preparing:
    """Items that wait, by what they wait for.

    Args:
        most: so many may be prepared, and have not run.
    """

    def __init__(self, most: int) -> None:
        self.ready = Line()
        """What can run."""
        self.unready = Line()
        """What is to be prepared. An item whose turn came before its content changed is ready as
        well: what it lacks by the time it runs is done then."""
        self._most = most
        self._prepared = Line()
        self.under_way: Waiting | None = None
        """What is being prepared, if it waits for that still."""
        self.until_ms = 0
        """When a preparation will have ended, as whoever began it says; 0: none is under way."""

    def add(self, waiting: Waiting) -> None:
        """It waits from now on."""
        (self.unready if waiting.preparation else self.ready).add(waiting)

    def remove(self, item: int) -> None:
        """It waits no longer, if it did."""
        for line in (self.ready, self.unready, self._prepared):
            line.remove(item)
        self._forget_under_way(item)

    def change(self, waiting: Waiting) -> None:
        """It waits with other content; if it could run, or nearly could, it can.

        Or what changes faster than it is prepared would never run.
        """
        came = self._forget_under_way(waiting.item) or waiting.item in self.ready
        self.remove(waiting.item)
        if waiting.preparation:
            self.unready.add(waiting)
        if came or not waiting.preparation:
            self.ready.add(waiting)

    def begin(self, first: Sequence[int] = ()) -> Begun | None:
        """What to prepare now; None: nothing waits for it, or enough is prepared.

        Args:
            first: items that go before the others, in order.
        """
        owed = (one for item in first if (one := self.unready.get(item)) is not None)
        coming, dropped = next(owed, None) or next(iter(self.unready), None), None
        if coming is None:
            return None
        if len(self._prepared) >= self._most:
            dropped = max(self._prepared, key=lambda one: _rank(one, first))
            if _rank(dropped, first) < _rank(coming, first):
                return None
            self.change(dropped)
            self.ready.remove(dropped.item)
        self.unready.remove(coming.item)
        self.under_way = coming
        return Begun(coming.item, None if dropped is None else dropped.item)

    def end(self) -> bool:
        """The preparation under way has ended; whether its item waits, with the same content."""
        ended, self.under_way, self.until_ms = self.under_way, None, 0
        if ended is None:
            return False
        self._prepared.add(ended)
        if ended.item not in self.ready:
            self.ready.add(ended)
        return True

    def _forget_under_way(self, item: int) -> bool:
        """Whether that was under way."""
        if self.under_way is None or self.under_way.item != item:
            return False
        self.under_way = None
        return True


def _rank(waiting: Waiting, first: Sequence[int]) -> tuple[bool, tuple[int, bool, int, int]]:
    return (waiting.item not in first, waiting.order)
