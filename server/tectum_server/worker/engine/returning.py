"""Who was just answered and asks again at once: how long a free engine should wait for them.

Callers in a closed loop come back some milliseconds after their answers. An engine that takes what
waits the moment it is free misses them, so they settle into two halves that alternate, and each
half's batch pays what a batch costs however few are in it. Waiting as long as that cost at most
loses no more than it can save; and who does not come back is not waited for again.

Pure bookkeeping, as `batching`. Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Returning"]

_NEWEST, _HABIT = 0.3, 0.5
"""Weight of the newest batch in the habit, and the habit from which on they are waited for."""


class Returning:
    """What became of those whom the last batch answered."""

    def __init__(self) -> None:
        self._habit = 0.0  # nobody is waited for before anybody has come back
        self._key: Hashable = None
        self._answered = self._came = 0
        self._until_ms = 0

    def answered(self, key: Hashable, items: int, fixed_ms: float, now_ms: int) -> None:
        """A batch has ended.

        Args:
            key: of its items.
            items: how many.
            fixed_ms: what a batch of that key costs, however few are in it.
            now_ms: now.
        """
        if self._answered:
            share = min(1.0, self._came / self._answered)
            self._habit += _NEWEST * (share - self._habit)
        self._key, self._answered, self._came = key, items, 0
        self._until_ms = now_ms + round(fixed_ms)

    def came(self, key: Hashable, items: int, now_ms: int) -> None:
        """Items were admitted; whose they are does not matter."""
        if key == self._key and now_ms <= self._until_ms:
            self._came += items

    def missing(self, key: Hashable, now_ms: int) -> tuple[int, int]:
        """How many items of `key` are worth waiting for, and how many milliseconds at most."""
        missing, left = self._answered - self._came, self._until_ms - now_ms
        if key != self._key or self._habit < _HABIT or missing <= 0 or left <= 0:
            return 0, 0
        return missing, left
