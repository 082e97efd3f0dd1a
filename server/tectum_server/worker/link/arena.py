"""Who has which bytes of a shared segment: a bounded first-fit allocator.

Pure bookkeeping, no memory of its own. One side of a link allocates; spans come back in
any order, for requests do not finish in the order they came.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Arena", "Span"]

_ALIGNMENT = 64  # a cache line; also enough for any element type


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [offset, offset + size)."""

    offset: int
    size: int


class Arena:
    """Spans of a segment of `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = [Span(0, capacity)]  # sorted by offset, never touching
        self._taken: dict[int, int] = {}

    @property
    def used(self) -> int:
        """Bytes in taken spans, alignment included."""
        return sum(self._taken.values())

    def allocate(self, size: int) -> Span | None:
        """A span of at least `size` bytes; None if there is no room now."""
        rounded = max(-(-size // _ALIGNMENT), 1) * _ALIGNMENT
        for place, free in enumerate(self._free):
            if free.size < rounded:
                continue
            rest = Span(free.offset + rounded, free.size - rounded)
            self._free[place : place + 1] = [rest] if rest.size else []
            self._taken[free.offset] = rounded
            return Span(free.offset, rounded)
        return None

    def release(self, offset: int) -> None:
        """Give a span back by its offset.

        Raises:
            KeyError: no span taken there.
        """
        size = self._taken.pop(offset)
        place = 0
        while place < len(self._free) and self._free[place].offset < offset:
            place += 1
        self._free.insert(place, Span(offset, size))
        self._merge(place)
        self._merge(place - 1)

    def _merge(self, place: int) -> None:
        """Join the free span at `place` with the next one if they touch."""
        if not 0 <= place < len(self._free) - 1:
            return
        first, second = self._free[place], self._free[place + 1]
        if first.offset + first.size == second.offset:
            self._free[place : place + 2] = [Span(first.offset, first.size + second.size)]
