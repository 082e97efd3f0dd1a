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
from typing import NamedTuple

__all__ = ["Cost", "CostModel", "Length", "Preparation", "Trifle"]

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


class Length(int):
    """The part of a batch key, a tuple, that costs go by evenly: keys alike but for it are kin."""


class Trifle(int):
    """A part that costs hardly go by: keys that are alike but for such are kin as well."""


class Preparation(NamedTuple):
    """What has to be done to an item before it can run: work of a kind, and so much of it."""

    kind: Hashable
    """A key of its own, whose cost goes by size as a batch's does by its items."""
    size: int


class CostModel:
    """One line for each batch key, from what batches took; for one thread alone.

    A key that has not run yet is told by its kin: between the next shorter and the next longer, or
    as the nearest.
    """

    def __init__(self) -> None:
        self._kin: dict[Hashable, dict[Hashable, int]] = {}
        """Of each family the keys with an observation, and their lengths."""
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
        family, length = _family(key)
        self._kin.setdefault(family, {})[key] = length

    def cost(self, key: Hashable) -> Cost | None:
        """The line for `key`; None before its first observation, or any of its kin.

        For a preparation: what so many of them take, one after another.
        """
        if isinstance(key, Preparation):
            one = self.cost(key.kind)
            return None if one is None else Cost(0.0, one.of(key.size), one.least)
        known = self._fitted.get(key)
        return self._of_kin(key) if known is None else known

    def _of_kin(self, key: Hashable) -> Cost | None:
        """Between the nearest in length; of several as long the dearest."""
        family, length = _family(key)
        by_length: dict[int, Cost] = {}
        for other, its in self._kin.get(family, {}).items():
            cost = self._fitted[other]
            if its not in by_length or by_length[its].of(1) < cost.of(1):
                by_length[its] = cost
        shorter = max((one for one in by_length if one <= length), default=None)
        longer = min((one for one in by_length if one >= length), default=None)
        if shorter is None or longer is None or shorter == longer:
            nearest = longer if shorter is None else shorter
            return None if nearest is None else by_length[nearest]
        return _between(
            by_length[shorter], by_length[longer], (length - shorter) / (longer - shorter)
        )

    def forget(self, keys: set[Hashable]) -> None:
        """Drop keys that will not come again (an unloaded model's)."""
        for key in keys:
            self._seen.pop(key, None)
            self._last.pop(key, None)
            self._fitted.pop(key, None)
            family, _ = _family(key)
            kin = self._kin.get(family, {})
            kin.pop(key, None)
            if not kin:
                self._kin.pop(family, None)

    @property
    def known(self) -> set[Hashable]:
        """Keys with an observation."""
        return set(self._fitted)


def _family(key: Hashable) -> tuple[Hashable, int]:
    """What a key shares with its kin, and its length; 0: it has none."""
    if not isinstance(key, tuple):
        return key, 0
    length = next((int(part) for part in key if isinstance(part, Length)), 0)
    shared = (None if isinstance(part, Length | Trifle) else part for part in key)
    return tuple(shared), length


def _between(one: Cost, other: Cost, share: float) -> Cost:
    """So much of the way from one line to another."""
    return Cost(
        one.fixed_ms + share * (other.fixed_ms - one.fixed_ms),
        one.per_item_ms + share * (other.per_item_ms - one.per_item_ms),
        min(one.least, other.least),
    )


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
