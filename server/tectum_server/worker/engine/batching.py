"""Micro-batching policy: which waiting requests run together, and when.

Pure bookkeeping. No torch, no grpc, no clock and no tasks: the caller passes `now` in
and acts on what comes back, so every rule here is tested without sleeping.
`scheduler.py` is the asyncio shell that drives it. Times are whole milliseconds.

The rules:
- Order is priority class, then earliest deadline, then arrival.
- A batch is formed when the engine is free, from what waits: the first in order, and
  whoever has the same key, in order, as far as the bucket goes and no member's deadline breaks.
- Before that, a free engine waits for callers who were just answered and use to ask again at once
  (`returning`): never while CONTROL calls are expected, with another key or a more urgent class
  waiting, nor close to anybody's deadline.
- While CONTROL calls come, a batch with others in it stays within the operator's limit.
- What cannot be met is refused when it asks; what expires while waiting never runs.
- What a request itself costs is taken at its best of late, and now and then one that would be
  refused for that alone is let in: a refusal teaches nothing, and costs may have been learnt in a
  bad moment.
- The higher classes' share of the queue is kept free for them (`shares`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tectum_server.worker.engine.cost import Cost
from tectum_server.worker.engine.returning import Returning
from tectum_server.worker.shares import has_room

__all__ = ["Admitted", "Batch", "Batching", "Forecast", "Reason", "Refused", "Waiting"]

_CONTROL = 1
"""The highest class, as `jobs.Priority` has it."""
_EXPECTED_MS = 10_000
"""So long after a CONTROL call more of them are expected."""
_SLACK = 0.25
"""Of a batch's cost that must be left before every deadline when a free engine waits: costs are
medians, and the answer has a way to go."""
_PROBE_MS, _PROBE_COSTS = 1000, 10
"""So long, and so many times its cost, a key that is refused must not have run before a request is
let in to see: what then comes too late takes a tenth of the engine's time at most."""
_MOST_REFUSED = 512
"""As many keys as costs are known of."""


class Reason(Enum):
    """Why a request is not taken."""

    QUEUE_FULL = "queue full"
    DEADLINE_UNREACHABLE = "deadline unreachable"
    DEADLINE_INFEASIBLE = "deadline infeasible"
    DEADLINE_PASSED = "deadline passed"


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

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts by service."""
        return (self.priority, self.deadline_ms, self.item)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request waits from now on."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Why a deadline cannot be met."""

    left_ms: int
    """Until the deadline, from the moment that counts: the request's arrival or now."""
    takes_ms: int
    """Until the answer, from the same moment."""
    alone: bool
    """Whether that is for the request itself; else for what waits before it as well."""

    @classmethod
    def of(cls, deadline_ms: int, done_ms: float, since_ms: int, *, alone: bool) -> Forecast:
        """For an answer that is due at one moment and done at a later one."""
        return cls(deadline_ms - since_ms, math.ceil(done_ms - since_ms), alone)


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was not taken."""

    reason: Reason
    retry_after_ms: int | None = None
    """When asking again may help; None: it cannot."""
    forecast: Forecast | None = None
    """Why its deadline cannot be met; None: it has passed, or is not the reason."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What runs now."""

    key: Hashable
    items: tuple[int, ...]
    """In order of service."""


class Batching:
    """The queue and its rules.

    Args:
        max_queued: items that may wait at once.
        max_batch: largest batch for any key.
        cost: what a batch of a key costs; None where nothing is known yet.
        max_block_ms: longest that a batch with anything but CONTROL in it is predicted to take
            while CONTROL calls come, a single item's excepted; None: no limit. Admission does
            not reckon with the smaller batches this makes.
    """

    def __init__(
        self,
        max_queued: int,
        max_batch: int,
        cost: Callable[[Hashable], Cost | None],
        max_block_ms: int | None = None,
    ) -> None:
        self._max_queued = max_queued
        self._max_batch = max_batch
        self._cost = cost
        self._max_block_ms = max_block_ms
        self._control_until_ms: int | None = None
        self._refused_since_ms: dict[Hashable, int] = {}
        self._waiting: dict[int, Waiting] = {}
        self._busy_since_ms = self._busy_until_ms = 0
        self._running: list[Waiting] = []
        self._returning = Returning()

    def __len__(self) -> int:
        return len(self._waiting)

    def depth(self) -> dict[int, int]:
        """Waiting items by priority."""
        depth: dict[int, int] = defaultdict(int)
        for waiting in self._waiting.values():
            depth[waiting.priority] += 1
        return dict(depth)

    def admit(
        self, items: Sequence[Waiting], now_ms: int, arrived_ms: int | None = None
    ) -> Admitted | Refused:
        """Take a request's items, all or none.

        Args:
            items: of one request, so one priority and deadline.
            now_ms: now.
            arrived_ms: when the worker got the request, if not now: what it has lost since is not
                the caller's fault.
        """
        first = items[0]
        if first.priority == _CONTROL:
            self._control_until_ms = now_ms + _EXPECTED_MS
        if first.deadline_ms <= now_ms:
            return Refused(Reason.DEADLINE_PASSED)
        alone, own = self._time_for(items), self._best_time_for(items)
        if now_ms + own > first.deadline_ms:
            if not self._probes(items, alone, now_ms):
                since_ms = now_ms if arrived_ms is None else arrived_ms
                if since_ms + own > first.deadline_ms:
                    return _infeasible(first.deadline_ms, since_ms + own, since_ms)
                return _unreachable(first.deadline_ms, now_ms + own, now_ms, alone=True)
            own = 0.0
        if not has_room(self._max_queued, len(self._waiting), len(items), first.priority):
            return Refused(Reason.QUEUE_FULL, max(1, round(self._time_for(self._waiting.values()))))
        ahead = [waiting for waiting in self._waiting.values() if waiting.order < first.order]
        starts_ms = max(now_ms, self._busy_until_ms)
        done_ms = starts_ms + self._time_for([*ahead, *items]) - alone + own
        if done_ms > first.deadline_ms:
            return _unreachable(first.deadline_ms, done_ms, now_ms)
        for item in items:
            self._waiting[item.item] = item
            self._returning.came(item.key, 1, now_ms)
        return Admitted()

    def cancel(self, items: Iterable[int]) -> None:
        """Forget items whose caller has gone; those already running are not known here."""
        for item in items:
            self._waiting.pop(item, None)

    def expire(self, now_ms: int) -> tuple[int, ...]:
        """Drop and name the items whose deadline has passed."""
        late = tuple(w.item for w in self._waiting.values() if w.deadline_ms <= now_ms)
        self.cancel(late)
        return late

    def pause(self, now_ms: int) -> int:
        """Milliseconds that a free engine waits for more, unless it is asked again; 0: none."""
        if not self._waiting or self._control_expected(now_ms):
            return 0
        key, *others = {waiting.key for waiting in self._waiting.values()}
        priority = min(waiting.priority for waiting in self._waiting.values())
        missing, left_ms = self._returning.missing(key, priority, now_ms)
        cost = self._cost(key)
        if others or not missing or cost is None or len(self._waiting) >= self._max_batch:
            return 0
        due_ms = min(waiting.deadline_ms for waiting in self._waiting.values())
        takes_ms = cost.of(min(self._max_batch, len(self._waiting) + missing))
        return left_ms if now_ms + left_ms + (1 + _SLACK) * takes_ms <= due_ms else 0

    def next_batch(self, now_ms: int) -> Batch | None:
        """What to run on a free engine; None if nothing waits. Call `expire` and `pause` first."""
        if not self._waiting:
            return None
        first = min(self._waiting.values(), key=lambda waiting: waiting.order)
        mates = sorted(
            (waiting for waiting in self._waiting.values() if waiting.key == first.key),
            key=lambda waiting: waiting.order,
        )[: self._max_batch]
        cost = self._cost(first.key)
        size = len(mates) if cost is None else self._size(mates, cost, now_ms)
        chosen = mates[:size]
        self.cancel(waiting.item for waiting in chosen)
        self._refused_since_ms.pop(first.key, None)
        self._busy_since_ms = now_ms
        self._busy_until_ms = now_ms + (0 if cost is None else round(cost.of(size)))
        self._running = chosen
        return Batch(first.key, tuple(waiting.item for waiting in chosen))

    def idle(self, now_ms: int) -> None:
        """The engine has finished the batch that it was last given."""
        self._busy_until_ms = 0
        if not self._running:
            return
        # Who has items waiting still is not answered yet, and has no reason to come back.
        unanswered = {waiting.request for waiting in self._waiting.values()} - {None}
        back = [ran for ran in self._running if ran.request not in unanswered]
        cost = self._cost(self._running[0].key) or Cost(0.0, 0.0)
        self._returning.answered(
            self._running[0].key,
            len(back),
            max((ran.priority for ran in back), default=_CONTROL),
            cost.fixed_ms,
            now_ms - self._busy_since_ms,
            now_ms,
        )
        self._running = []

    def _control_expected(self, now_ms: int) -> bool:
        return self._control_until_ms is not None and now_ms < self._control_until_ms

    def _probes(self, items: Sequence[Waiting], alone: float, now_ms: int) -> bool:
        """Whether a request that its own cost rules out is let in, to see what it takes now.

        One at a time, once none of its keys has run for long enough since a refusal.
        """
        keys = {item.key for item in items}
        for key in keys - self._refused_since_ms.keys():
            if len(self._refused_since_ms) >= _MOST_REFUSED:
                self._refused_since_ms.pop(next(iter(self._refused_since_ms)))
            self._refused_since_ms[key] = now_ms
        since = max(self._refused_since_ms.get(key, now_ms) for key in keys)
        if now_ms - since < max(_PROBE_MS, _PROBE_COSTS * alone):
            return False
        return not any(waiting.key in keys for waiting in self._waiting.values())

    def _size(self, mates: Sequence[Waiting], cost: Cost, now_ms: int) -> int:
        """How many of the mates run now."""
        size = _fitting(mates, cost, now_ms)
        if self._max_block_ms is None or not self._control_expected(now_ms):
            return size
        # CONTROL's own come first: where the last is one of them, all are.
        while (
            size > 1 and mates[size - 1].priority != _CONTROL and cost.of(size) > self._max_block_ms
        ):
            size -= 1
        return size

    def _time_for(self, items: Iterable[Waiting]) -> float:
        """Milliseconds for these items alone, in full batches of each key; unknown keys cost 0."""
        return sum(time for time, _ in self._times_for(items))

    def _best_time_for(self, items: Iterable[Waiting]) -> float:
        """The same, were each key's batches as fast as the fastest of late."""
        return sum(time * least for time, least in self._times_for(items))

    def _times_for(self, items: Iterable[Waiting]) -> Iterator[tuple[float, float]]:
        """For each known key, its milliseconds, and the least share of them that it took."""
        for key, count in Counter(waiting.key for waiting in items).items():
            cost = self._cost(key)
            if cost is not None:
                batches = -(-count // self._max_batch)
                yield batches * cost.fixed_ms + count * cost.per_item_ms, cost.least


def _infeasible(deadline_ms: int, done_ms: float, since_ms: int) -> Refused:
    """Done too late, whatever waits."""
    forecast = Forecast.of(deadline_ms, done_ms, since_ms, alone=True)
    return Refused(Reason.DEADLINE_INFEASIBLE, forecast=forecast)


def _unreachable(deadline_ms: int, done_ms: float, now_ms: int, *, alone: bool = False) -> Refused:
    """Done too late, as things are."""
    return Refused(
        Reason.DEADLINE_UNREACHABLE,
        retry_after_ms=max(1, round(done_ms - deadline_ms)),
        forecast=Forecast.of(deadline_ms, done_ms, now_ms, alone=alone),
    )


def _fitting(mates: Sequence[Waiting], cost: Cost, now_ms: int) -> int:
    """How many of the mates can run together without a member missing its deadline by it.

    A member that would be late even alone does not bind the others.
    """
    tightest = None
    for size, mate in enumerate(mates, start=1):
        if now_ms + cost.of(1) <= mate.deadline_ms:
            tightest = mate.deadline_ms if tightest is None else min(tightest, mate.deadline_ms)
        if size > 1 and tightest is not None and now_ms + cost.of(size) > tightest:
            return size - 1
    return len(mates)
