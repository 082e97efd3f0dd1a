"""What waiting items will take, by what batches cost: the arithmetic of admission.

Pure bookkeeping, as `batching`. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

from tectum_server.worker.engine.policy.cost import Cost

__all__ = ["MARGIN", "Pace", "overlapped"]

MARGIN = 0.1
"""Of what a queue takes, added to it where it is longer than a batch."""


def overlapped(first_ms: float, then_ms: float, items: int) -> float:
    """For items that pass two stages beside each other, each item one after the other.

    Args:
        first_ms: what all of them take in the one.
        then_ms: and in the other.
        items: how many there are.
    """
    return max(first_ms, then_ms) + min(first_ms, then_ms) / items


class Pace:
    """Times for items, in the largest batches that are allowed; unknown keys take no time.

    Args:
        cost: what a batch of a key costs; None where nothing is known yet.
        max_batch: largest batch for any key.
        limit_ms: longest that a batch may take, a single item's excepted; None: no limit.
    """

    def __init__(
        self,
        cost: Callable[[Hashable], Cost | None],
        max_batch: int,
        limit_ms: float | None = None,
    ) -> None:
        self._cost = cost
        self._max_batch = max_batch
        self._limit_ms = limit_ms

    def most(self, cost: Cost) -> int:
        """Items in the largest batch of this cost."""
        if self._limit_ms is None:
            return self._max_batch
        return cost.within(self._limit_ms, self._max_batch)

    def usual(self, keys: Mapping[Hashable, int]) -> float:
        """For so many items of each key, one batch after another."""
        return sum(self._takes(cost, count) for cost, count in self._known(keys))

    def best(self, keys: Mapping[Hashable, int]) -> float:
        """The same, were each key's batches as fast as the fastest of late."""
        return sum(self._takes(cost, count) * cost.least for cost, count in self._known(keys))

    def queued(self, keys: Mapping[Hashable, int], last: Hashable) -> float:
        """For items that wait for each other, where more may come of the last one's key.

        Where more of it wait than one batch takes, others fill the last batch, and there is a
        margin: the last of a full queue is answered just in time, and a few batches a little
        slower than usual would make all who come a little late.
        """
        cost = self._cost(last)
        if cost is None or keys[last] <= (most := self.most(cost)):
            return self.usual(keys)
        return (1 + MARGIN) * self.usual({**keys, last: keys[last] + -keys[last] % most})

    def _known(self, keys: Mapping[Hashable, int]) -> Iterable[tuple[Cost, int]]:
        for key, count in keys.items():
            cost = self._cost(key)
            if cost is not None:
                yield cost, count

    def _takes(self, cost: Cost, count: int) -> float:
        return -(-count // self.most(cost)) * cost.fixed_ms + count * cost.per_item_ms
