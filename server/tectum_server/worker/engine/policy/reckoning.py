"""When what asks to join the line would be answered: what goes before it, and how fast that goes.

Pure bookkeeping, as `batching`, whose admission goes by it, and `foretelling`, which tells the
fronts of it. Times are milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.policy.forming import CONTROL, Forming
from tectum_server.worker.engine.policy.line import Line, Waiting
from tectum_server.worker.engine.policy.pace import Pace
from tectum_server.worker.engine.policy.preparing import Preparing
from tectum_server.worker.engine.policy.under_way import UnderWay
from tectum_server.worker.engine.policy.usage import Usage

__all__ = ["Ahead", "Reckoning", "preparations"]

_LAST = 2**62
"""An item that came after all others."""
_LEAST_SPEED = 0.01
"""Of the engine: nobody is told to come again in a hundred times what it takes."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What goes before a call."""

    first_ms: float
    """What runs, and streams that overtake."""
    keys: Counter[Hashable]
    """How many of each wait before it."""
    pace: Pace
    """Of batches before its class."""
    speed: float
    """Share of the engine that its class may count on while it waits."""


@dataclass(frozen=True, slots=True, eq=False)
class Reckoning:
    """What is asked of the books that `batching` keeps."""

    cost: Callable[[Hashable], Cost | None]
    """Of a batch of a key."""
    max_batch: int
    kept_share: float
    line: Line
    preparing: Preparing
    forming: Forming
    under_way: UnderWay
    usage: Usage

    def free_ms(self, now_ms: int) -> int:
        """When what is given to the engine now begins."""
        return max(self.under_way.until_ms, now_ms)

    def pace(self, priority: int, now_ms: int) -> Pace:
        """Of what waits before a class: before CONTROL that is CONTROL, and has no limit."""
        limit_ms = None if priority == CONTROL else self.forming.limit_ms(now_ms)
        return Pace(self.cost, self.max_batch, limit_ms)

    def ahead(self, priority: int, deadline_ms: int, now_ms: int) -> Ahead:
        """What goes before one more call of a class, due then, that needs no preparing.

        Args:
            priority: its class.
            deadline_ms: by when it is due.
            now_ms: now.
        """
        keys = self.line.ahead(Waiting(_LAST, None, priority, deadline_ms))
        pace = self.pace(priority, now_ms)
        first_ms = self._first_ms(priority, pace.usual(keys), now_ms)[0]
        return Ahead(first_ms, keys, pace, self._speed(priority, now_ms))

    def done_ms(
        self, items: Sequence[Waiting], keys: Counter[Hashable], pace: Pace, now_ms: int
    ) -> float:
        """When a request would be answered that joins the line now.

        Args:
            items: the request's.
            keys: how many of each key these are.
            pace: what batches take now.
            now_ms: now.
        """
        ahead, own_ms = self.line.ahead(items[0]), pace.usual(keys)
        ahead_ms = pace.queued(ahead + keys, items[-1].key) - own_ms
        first_ms, overtaking_ms, overtaking = self._first_ms(items[0].priority, ahead_ms, now_ms)
        waits_ms = first_ms + ahead_ms
        if before := preparations(items):
            count, prepared_ms = len(items), pace.usual(before)
            ready_ms = self._unready_ms(items[0], overtaking, pace, now_ms) + prepared_ms / count
            if ready_ms > waits_ms:
                ready_ms += max(self._others_ms(pace, now_ms), overtaking_ms)
            # Then all of its own one after another, or all prepared and the last alone.
            rest_ms = max(prepared_ms - own_ms, 0.0) * (1 - 1 / count)
            waits_ms = max(waits_ms, ready_ms + rest_ms)
        # Only who waits can be overtaken.
        return now_ms + waits_ms / self._speed(items[0].priority, now_ms) + own_ms

    def _first_ms(self, priority: int, ahead_ms: float, now_ms: int) -> tuple[float, float, int]:
        """What runs now and what overtakes a class's calls take; the latter alone, and its items.

        Args:
            priority: the class.
            ahead_ms: what waits before the call takes, but for these.
            now_ms: now.
        """
        free_ms = self.free_ms(now_ms)
        ran_ms = free_ms - self.under_way.since_ms
        overtaking_ms, overtaking = self.forming.overtaking(
            self.line, priority, ahead_ms, self.under_way.members, ran_ms, now_ms
        )
        return free_ms - now_ms + overtaking_ms, overtaking_ms, overtaking

    def _speed(self, priority: int, now_ms: int) -> float:
        """Share of the engine that a class may count on while it waits.

        What comes later and overtakes it is as much as there was of late; classes below have
        their kept share if they wait, but of CONTROL's time only what they are owed long since.
        """
        if priority == CONTROL:
            return 1.0
        below = sum(waiting > priority for waiting in self.line.classes)
        left = 1 - self.usage.above(priority, now_ms) - self.kept_share * below
        return max(left, self.kept_share, _LEAST_SPEED)

    def _unready_ms(self, waiting: Waiting, overtaking: int, pace: Pace, now_ms: int) -> float:
        """Until what goes before a call's item is prepared, and so many of its class's streams'."""
        unready = self.preparing.unready
        streams = islice(unready.of((waiting.priority, True)), overtaking)
        before = preparations(unready.before(waiting)) + preparations(streams)
        return max(self.preparing.until_ms - now_ms, 0) + pace.usual(before)

    def _others_ms(self, pace: Pace, now_ms: int) -> float:
        """What an engine begins with that is free before an item is prepared: it does not wait."""
        under_way, ready = self.preparing.under_way, self.preparing.ready
        others = self.forming.next(ready, now_ms) or ([under_way] if under_way else [])
        return pace.usual(Counter(other.key for other in others))


def preparations(items: Iterable[Waiting]) -> Counter[Hashable]:
    """How many of each there are to be done."""
    return Counter(item.preparation for item in items if item.preparation is not None)
