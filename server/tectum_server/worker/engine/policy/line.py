"""Who waits, kept in the order of service: priority class, then earliest deadline, then arrival.

A stream's place in the line is ordered otherwise: behind its class's calls, by how long the stream
has had no answer (`turns` says when streams go first all the same). A call and a stream's place of
one class are two ranks.

Pure bookkeeping, as `batching`; what is asked at every arrival and every batch is answered without
sorting anew.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Iterator
from dataclasses import dataclass

from tectum_server.worker.engine.policy.cost import Preparation

__all__ = ["Line", "Rank", "Waiting"]

Rank = tuple[int, bool]
"""A priority, and whether it is a stream's place; sorts by service."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One item of a request."""

    item: int
    """Names it; unique, rising in order of arrival."""
    key: Hashable
    """Items with equal keys may share a batch."""
    priority: int
    """Lower goes first."""
    deadline_ms: int
    """By when its answer is due; of a stream's place, when the frame that it has now is stale."""
    request: int | None = None
    """Equal for items of one request, which is answered with the last of them; None: it is one."""
    turn_ms: int | None = None
    """For a stream's place: since when its stream waits for its next answer, also with a place that
    came to nothing. None: a call."""
    preparation: Preparation | None = None
    """What has to be done before it can run; None: nothing."""

    @property
    def rank(self) -> Rank:
        """Whom it stands with."""
        return (self.priority, self.turn_ms is not None)

    @property
    def order(self) -> tuple[int, bool, int, int]:
        """Sorts by service."""
        return (*self.rank, *_place(self))


class Line:
    """Items that wait."""

    def __init__(self) -> None:
        self._items: dict[int, Waiting] = {}
        self._ranks: dict[Rank, list[Waiting]] = {}
        """Each in order of service; none is empty."""
        self._keys: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: int) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Waiting]:
        """In order."""
        return iter(self._in_order(()))

    def get(self, item: int) -> Waiting | None:
        """It, if it waits."""
        return self._items.get(item)

    def add(self, waiting: Waiting) -> None:
        """It waits from now on."""
        self._items[waiting.item] = waiting
        insort(self._ranks.setdefault(waiting.rank, []), waiting, key=_place)
        self._keys[waiting.key] += 1

    def remove(self, item: int) -> None:
        """It waits no longer, if it did."""
        waiting = self._items.pop(item, None)
        if waiting is None:
            return
        own = self._ranks[waiting.rank]
        del own[bisect_left(own, _place(waiting), key=_place)]
        if not own:
            del self._ranks[waiting.rank]
        self._keys[waiting.key] -= 1
        if not self._keys[waiting.key]:
            del self._keys[waiting.key]

    @property
    def calls(self) -> int:
        """How many items of calls wait."""
        return sum(len(own) for (_, streams), own in self._ranks.items() if not streams)

    @property
    def keys(self) -> Counter[Hashable]:
        """How many of each key wait; to be read."""
        return self._keys

    @property
    def classes(self) -> list[int]:
        """Of which something waits, the highest first."""
        return sorted({priority for priority, _ in self._ranks})

    @property
    def ranks(self) -> list[Rank]:
        """Of which something waits, in order."""
        return sorted(self._ranks)

    @property
    def requests(self) -> set[int]:
        """Of which something waits."""
        return {one.request for one in self._items.values() if one.request is not None}

    @property
    def depth(self) -> dict[int, int]:
        """How many of each class wait."""
        counts: dict[int, int] = {}
        for (priority, _), own in self._ranks.items():
            counts[priority] = counts.get(priority, 0) + len(own)
        return counts

    @property
    def due_ms(self) -> int | None:
        """The earliest deadline; None: nothing waits."""
        return min((one.deadline_ms for one in self._items.values()), default=None)

    def late(self, now_ms: int, forborne_ms: int = 0) -> Iterator[int]:
        """Items whose deadline has passed.

        Args:
            now_ms: now.
            forborne_ms: for so long after it a stream's place is none of them.
        """
        for (_, streams), own in self._ranks.items():
            for one in own:
                if one.deadline_ms + (forborne_ms if streams else 0) <= now_ms:
                    yield one.item
                elif not streams:  # they are in order of their deadlines
                    break

    def ahead(self, waiting: Waiting) -> Counter[Hashable]:
        """How many of each key go before one that does not wait yet."""
        return Counter(one.key for one in self.before(waiting))

    def before(self, waiting: Waiting) -> Iterator[Waiting]:
        """Who goes before one that does not wait yet."""
        for rank, own in self._ranks.items():
            if rank < waiting.rank:
                yield from own
            elif rank == waiting.rank:
                yield from own[: bisect_left(own, _place(waiting), key=_place)]

    def of(self, rank: Rank) -> Iterator[Waiting]:
        """Who stands with it, in order."""
        yield from self._ranks.get(rank, ())

    def mates(self, most: int, first: Container[Rank] = ()) -> list[Waiting]:
        """The first in order, and who has the same key, in order.

        Args:
            most: so many at most.
            first: ranks that go before the others.
        """
        found: list[Waiting] = []
        for one in self._in_order(first):
            if not found or one.key == found[0].key:
                found.append(one)
                if len(found) == most:
                    break
        return found

    def _in_order(self, first: Container[Rank]) -> Iterable[Waiting]:
        for rank in sorted(self._ranks, key=lambda one: (one not in first, one)):
            yield from self._ranks[rank]


def _place(waiting: Waiting) -> tuple[int, int]:
    """Sorts within a rank."""
    by = waiting.deadline_ms if waiting.turn_ms is None else waiting.turn_ms
    return (by, waiting.item)
