"""How much of the engine's time each class has had of late: what those below it cannot count on.

Pure bookkeeping, as `batching`. Times are milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection

__all__ = ["Usage"]

_MEMORY_MS = 1000.0
"""A batch of so long ago counts a third (1/e) of one that has just ended."""


class Usage:
    """Shares by class, each batch's time divided among its items."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._since_ms = 0

    def ran(self, members: Collection[int], took_ms: float, now_ms: int) -> None:
        """A batch has ended.

        Args:
            members: the classes of its items, one for each.
            took_ms: how long it ran.
            now_ms: now.
        """
        faded = math.exp((self._since_ms - now_ms) / _MEMORY_MS)
        self._used = {priority: used * faded for priority, used in self._used.items()}
        for priority, count in Counter(members).items():
            got = took_ms * count / len(members)
            self._used[priority] = self._used.get(priority, 0.0) + got
        self._since_ms = now_ms

    def above(self, priority: int, now_ms: int) -> float:
        """Share of the last second or so that classes above one have had, from 0 to 1."""
        used = sum(used for one, used in self._used.items() if one < priority)
        share = used * math.exp((self._since_ms - now_ms) / _MEMORY_MS) / _MEMORY_MS
        return min(share, 1.0)
