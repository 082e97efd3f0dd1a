"""What a batch costs: latency(n) = fixed + each·n, fitted online for every batch key.

Pure bookkeeping, standard library only. Least squares over the last observations,
each bucket by its median so that one slow batch does not bend the line. The line is then
brought to the pace of the last batches, whatever their size: a bucket that no longer comes
says how the costs of sizes compare, not how fast the engine is now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from statistics import median

__all__ = ["Cost", "CostModel"]

_REMEMBERED = 16
_MOST_KEYS = 512
"""More kinds of batch than a few models have; beyond, the one not seen for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Cost:
    """latency(n) = fixed_ms + per_item_ms · n."""

    fixed_ms: float
    per_item_ms: float
    least: float = 1.0
    """The fastest of the last batches took so much of what this says, at most all of it."""

    def of(self, items: int) -> float:
        """Milliseconds for a batch of `items`."""
        return self.fixed_ms + self.per_item_ms * items

    def within(self, limit_ms: float, most: int) -> int:
        """Items in the largest batch of at most so many milliseconds and items; one at least."""
        if self.of(most) <= limit_ms:
            return most
        if self.of(1) >= limit_ms:
            return 1
        fits = int((limit_ms - self.fixed_ms) / self.per_item_ms)
        return fits if self.of(fits) <= limit_ms else fits - 1  # the quotient is rounded


class CostModel:
    """One line for each batch key, from what batches took; for one thread alone."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, dict[int, deque[float]]] = {}
        self._last: dict[Hashable, deque[tuple[int, float]]] = {}
        self._fitted: dict[Hashable, Cost] = {}

    def observe(self, key: Hashable, items: int, took_ms: float) -> None:
        """A batch of `items` took `took_ms`."""
        sizes = self._seen.pop(key, {})
        self._seen[key] = sizes  # the latest last
        if len(self._seen) > _MOST_KEYS:
            self.forget({next(iter(self._seen))})
        sizes.setdefault(items, deque(maxlen=_REMEMBERED)).append(took_ms)
        last = self._last.setdefault(key, deque(maxlen=_REMEMBERED))
        last.append((items, took_ms))
        line = _fit({size: median(times) for size, times in sizes.items()})
        self._fitted[key] = _at_the_pace_of(last, line)

    def cost(self, key: Hashable) -> Cost | None:
        """The line for `key`; None before its first observation."""
        return self._fitted.get(key)

    def forget(self, keys: set[Hashable]) -> None:
        """Drop keys that will not come again (an unloaded model's)."""
        for key in keys:
            self._seen.pop(key, None)
            self._last.pop(key, None)
            self._fitted.pop(key, None)

    @property
    def known(self) -> set[Hashable]:
        """Keys with an observation."""
        return set(self._fitted)


def _fit(medians: dict[int, float]) -> Cost:
    """Least squares with both coefficients at least zero."""
    count = len(medians)
    if count == 1:
        ((size, took),) = medians.items()
        return Cost(0.0, took / size)
    mean_size = sum(medians) / count
    mean_took = sum(medians.values()) / count
    spread = sum((size - mean_size) ** 2 for size in medians)
    slope = sum((size - mean_size) * (took - mean_took) for size, took in medians.items()) / spread
    slope = max(slope, 0.0)
    fixed = mean_took - slope * mean_size
    if fixed < 0:  # through the origin instead
        squares = sum(size * size for size in medians)
        return Cost(0.0, sum(size * took for size, took in medians.items()) / squares)
    return Cost(fixed, slope)


def _at_the_pace_of(last: Iterable[tuple[int, float]], line: Cost) -> Cost:
    """The line, so that half of the last batches took less than it says, and half more."""
    shares = [took / line.of(size) if line.of(size) else 1.0 for size, took in last]
    pace = median(shares)
    least = min(min(shares) / pace, 1.0) if pace else 1.0
    return Cost(line.fixed_ms * pace, line.per_item_ms * pace, least)
