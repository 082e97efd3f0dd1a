"""Who was just answered and asks again at once: how long a free engine should wait for them.

Callers in a closed loop come back some milliseconds after their answers. An engine that takes what
waits the moment it is free misses them, so they settle into two halves that alternate, and each
half's batch pays what a batch costs however few are in it.

Waiting is bounded by a small share of what the batch took that answered them, so nobody's answer
is late by more than that share; callers that come back at once need no more of it. Whoever comes
at a pace of its own, as a camera does, is rarely back in so short a time, and is not waited for.

Pure bookkeeping, as `batching`. Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Returning"]

_SHARE = 0.1
"""Of the batch's time that is waited at most."""
_NEWEST, _HABIT = 0.3, 0.5
"""Weight of the newest batch in the habit, and the habit from which on they are waited for."""


class Returning:
    """What became of those whom the last batch answered."""

    def __init__(self) -> None:
        self._habit = 0.0  # nobody is waited for before anybody has come back
        self._key: Hashable = None
        self._priority = 0
        self._answered = self._came = 0
        self._until_ms = 0

    def answered(
        self,
        key: Hashable,
        items: int,
        priority: int,
        fixed_ms: float,
        took_ms: int,
        now_ms: int,
    ) -> None:
        """A batch has ended.

        Args:
            key: of its items.
            items: how many belong to requests that are answered now, in full.
            priority: the least urgent of these.
            fixed_ms: what a batch of that key usually costs, however few are in it; waiting longer
                would cost more than it saves.
            took_ms: how long this batch itself took.
            now_ms: now.
        """
        if key != self._key:
            self._habit = 0.0
        elif self._answered:
            share = min(1.0, self._came / self._answered)
            self._habit += _NEWEST * (share - self._habit)
        self._key, self._answered, self._priority, self._came = key, items, priority, 0
        self._until_ms = now_ms + round(min(fixed_ms, _SHARE * took_ms))

    def came(self, key: Hashable, items: int, now_ms: int) -> None:
        """Items were admitted; whose they are does not matter."""
        if key == self._key and now_ms <= self._until_ms:
            self._came += items

    def missing(self, key: Hashable, priority: int, now_ms: int) -> tuple[int, int]:
        """What the waiting is worth.

        Args:
            key: of what waits already.
            priority: the most urgent of that; it waits for nobody of a lower class.
            now_ms: now.

        Returns:
            How many items may still come, and for how many milliseconds at most.
        """
        missing, left = self._answered - self._came, self._until_ms - now_ms
        known = key == self._key and self._habit >= _HABIT and priority >= self._priority
        return (missing, left) if known and missing > 0 and left > 0 else (0, 0)
