"""Who waits, kept in the order of service: priority class, then earliest deadline, then arrival.

Pure bookkeeping, as `batching`; what is asked at every arrival and every batch is answered without
sorting anew.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from tectum_server.worker.engine.cost import Preparation

__all__ = ["Line", "Waiting"]


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
    """By when its answer is due."""
    request: int | None = None
    """Equal for items of one request, which is answered with the last of them; None: it is one."""

    preparation: Preparation | None = None
    """What has to be done before it can run; None: nothing."""

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts by service."""
        return (self.priority, self.deadline_ms, self.item)


class Line:
    """Items that wait."""

    def __init__(self) -> None:
        self._items: dict[int, Waiting] = {}
        self._classes: dict[int, list[Waiting]] = {}
        """Each in order of service; none is empty."""
        self._keys: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: int) -> bool:
        return item in self._items

    def get(self, item: int) -> Waiting | None:
        """It, if it waits."""
        return self._items.get(item)

    def add(self, waiting: Waiting) -> None:
        """It waits from now on."""
        self._items[waiting.item] = waiting
        insort(self._classes.setdefault(waiting.priority, []), waiting, key=_place)
        self._keys[waiting.key] += 1

    def remove(self, item: int) -> None:
        """It waits no longer, if it did."""
        waiting = self._items.pop(item, None)
        if waiting is None:
            return
        own = self._classes[waiting.priority]
        del own[bisect_left(own, _place(waiting), key=_place)]
        if not own:
            del self._classes[waiting.priority]
        self._keys[waiting.key] -= 1
        if not self._keys[waiting.key]:
            del self._keys[waiting.key]

    @property
    def keys(self) -> Counter[Hashable]:
        """How many of each key wait; to be read."""
        return self._keys

    @property
    def classes(self) -> list[int]:
        """Of which something waits, the highest first."""
        return sorted(self._classes)

    @property
    def requests(self) -> set[int]:
        """Of which something waits."""
        return {one.request for one in self._items.values() if one.request is not None}

    @property
    def depth(self) -> dict[int, int]:
        """How many of each class wait."""
        return {priority: len(own) for priority, own in self._classes.items()}

    @property
    def due_ms(self) -> int | None:
        """The earliest deadline; None: nothing waits."""
        return min((own[0].deadline_ms for own in self._classes.values()), default=None)

    def late(self, now_ms: int) -> Iterator[int]:
        """Items whose deadline has passed."""
        for own in self._classes.values():
            for one in own:
                if one.deadline_ms > now_ms:
                    break
                yield one.item

    def ahead(self, waiting: Waiting) -> Counter[Hashable]:
        """How many of each key go before one that does not wait yet."""
        return Counter(one.key for one in self.before(waiting))

    def before(self, waiting: Waiting) -> Iterator[Waiting]:
        """Who goes before one that does not wait yet."""
        for priority, own in self._classes.items():
            if priority < waiting.priority:
                yield from own
            elif priority == waiting.priority:
                yield from own[: bisect_left(own, _place(waiting), key=_place)]

    def first(self, before: int | None = None) -> Waiting | None:
        """The first in order; `before` as in `mates`."""
        return next(iter(self._in_order(before)), None)

    def last(self, before: int | None = None) -> Waiting | None:
        """The last in order; `before` as in `mates`."""
        if not self._classes:
            return None
        return self._classes[max(self._classes, key=lambda one: (one != before, one))][-1]

    def mates(self, most: int, before: int | None = None) -> list[Waiting]:
        """The first in order, and who has the same key, in order.

        Args:
            most: so many at most.
            before: a class that goes before the others; None: none does.
        """
        found: list[Waiting] = []
        for one in self._in_order(before):
            if not found or one.key == found[0].key:
                found.append(one)
                if len(found) == most:
                    break
        return found

    def _in_order(self, before: int | None) -> Iterable[Waiting]:
        for priority in sorted(self._classes, key=lambda one: (one != before, one)):
            yield from self._classes[priority]


def _place(waiting: Waiting) -> tuple[int, int]:
    """Sorts within a class."""
    return (waiting.deadline_ms, waiting.item)
