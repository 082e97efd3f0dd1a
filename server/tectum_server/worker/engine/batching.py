"""Micro-batching policy: which waiting requests run together, and when.

Pure bookkeeping. No torch, no grpc, no clock and no tasks: the caller passes `now` in
and acts on what comes back, so every rule here is tested without sleeping.
`scheduler.py` is the asyncio shell that drives it. Times are whole milliseconds.

The rules:
- Order is priority class, then earliest deadline, then arrival.
- A stream has a place in the line whose content changes. Streams go behind the calls of their
  class, whoever has had no answer for longest first, and half of the class's time is theirs
  (`turns`). A place is not refused for what waits before it, and is there until its turn comes;
  whether its frame is of use is asked then.
- A batch is formed when the engine is free, from what waits: the first in order, and
  whoever has the same key, in order, as far as the bucket goes and no member's deadline breaks.
- Before that, a free engine waits for callers who were just answered and use to ask again at once
  (`returning`): never while CONTROL calls are expected, with another key or a more urgent class
  waiting, nor close to anybody's deadline.
- While CONTROL comes, a batch with others in it stays within the operator's limit; while CONTROL
  calls do, one with streams in it does, too.
- A class below CONTROL that has waited through enough of others' batches goes first (`owed`).
- What cannot be met is refused when it asks; what expires while waiting never runs.
- What a request itself costs is taken at its best of late, and now and then one that would be
  refused for that alone is let in (`probing`). What it will ask for after that counts as well.
- The higher classes' share of the queue is kept free for them (`shares`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType

from tectum_server.worker.engine.cost import Cost
from tectum_server.worker.engine.line import Line, Rank, Waiting
from tectum_server.worker.engine.owed import Owed
from tectum_server.worker.engine.pace import Pace
from tectum_server.worker.engine.probing import Probing
from tectum_server.worker.engine.returning import Returning
from tectum_server.worker.engine.turns import Turns
from tectum_server.worker.engine.usage import Usage
from tectum_server.worker.engine.verdicts import (
    Admitted,
    Forecast,
    Reason,
    Refused,
    infeasible,
    unreachable,
)
from tectum_server.worker.shares import has_room

__all__ = ["Admitted", "Batch", "Batching", "Forecast", "Reason", "Refused", "Waiting"]

_CONTROL = 1
"""The highest class, as `jobs.Priority` has it."""
_EXPECTED_MS = 10_000
"""So long after a CONTROL call more of them are expected."""
_SLACK = 0.25
"""Of a batch's cost that must be left before every deadline when a free engine waits: costs are
medians, and the answer has a way to go."""
_FORBORNE_MS = 1000
"""So long after its frame went stale a stream's place is given up, if its turn has not come: its
client shall hear of it, and its newest frame asks anew."""
_OWED_TO_OVERTAKE_CONTROL = 4
"""Batches that a class must be owed to go before CONTROL."""
_LEAST_SPEED = 0.01
"""Of the engine: nobody is told to come again in a hundred times what it takes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What runs now."""

    key: Hashable
    items: tuple[int, ...]
    """In order of service."""


class Batching:
    """The queue and its rules.

    Args:
        max_queued: calls' items that may wait at once; streams are bounded by who opens them.
        max_batch: largest batch for any key.
        cost: what a batch of a key costs; None where nothing is known yet.
        max_block_ms: longest that a batch with anything but CONTROL in it is predicted to take
            while CONTROL comes, and one with anything but CONTROL calls while these come; a single
            item's excepted. None: no limit.
    """

    def __init__(
        self,
        max_queued: int,
        max_batch: int,
        cost: Callable[[Hashable], Cost | None],
        max_block_ms: int | None = None,
        kept_share: float = 0.0,
    ) -> None:
        self._max_queued = max_queued
        self._max_batch = max_batch
        self._cost = cost
        self._max_block_ms = max_block_ms
        self._control_until_ms = self._calls_until_ms = 0
        self._probing = Probing()
        self._line = Line()
        self._busy_since_ms = self._busy_until_ms = 0
        self._running: list[Waiting] = []
        self._returning = Returning()
        self._kept_share = kept_share
        self._owed = Owed(kept_share, _CONTROL)
        self._turns = Turns()
        self._usage = Usage()

    def __len__(self) -> int:
        return len(self._line)

    def depth(self) -> dict[int, int]:
        """Waiting items by priority."""
        return self._line.depth

    def admit(
        self,
        items: Sequence[Waiting],
        now_ms: int,
        arrived_ms: int | None = None,
        later: Mapping[Hashable, int] = MappingProxyType({}),
    ) -> Admitted | Refused:
        """Take a request's items, all or none.

        Args:
            items: of one request, so one priority and deadline.
            now_ms: now.
            arrived_ms: when the worker got the request, if not now: what it has lost since is not
                the caller's fault. For a stream's place, when its frame was captured.
            later: how many items of each key it asks for once these are answered, by the same
                deadline; they wait for nothing yet, and are admitted again.
        """
        first = items[0]
        if first.priority == _CONTROL:
            self._control_until_ms = now_ms + _EXPECTED_MS
            if first.turn_ms is None:
                self._calls_until_ms = now_ms + _EXPECTED_MS
        if first.deadline_ms <= now_ms:
            return Refused(Reason.DEADLINE_PASSED)
        keys, free = Counter(item.key for item in items), Pace(self._cost, self._max_batch)
        # Of what it costs itself, so much less than usual if all goes as well as it did of late.
        own = free.best(keys) + free.best(later)
        spared = free.usual(keys) + free.usual(later) - own
        # By its turn a stream's place is for a newer frame: what counts is how long each is of use.
        asked_ms = now_ms if first.turn_ms is None or arrived_ms is None else arrived_ms
        if asked_ms + own > first.deadline_ms:
            of, waiting = later.keys() or keys.keys(), self._line.keys.keys()
            if not self._probing.lets_in(of, own + spared, waiting, now_ms, ahead=bool(later)):
                since_ms = now_ms if arrived_ms is None else arrived_ms
                if since_ms + own > first.deadline_ms:
                    return infeasible(first.deadline_ms, since_ms + own, since_ms)
                return unreachable(first.deadline_ms, now_ms + own, now_ms, alone=True)
            spared += own
        # What goes before CONTROL is CONTROL, and has no limit.
        limit_ms = None if first.priority == _CONTROL else self._limit_ms(now_ms)
        pace = Pace(self._cost, self._max_batch, limit_ms)
        if first.turn_ms is None:
            if not has_room(self._max_queued, self._line.calls, len(items), first.priority):
                after_ms = pace.usual(self._line.keys)
                return Refused(Reason.QUEUE_FULL, max(1, round(after_ms)))
            done_ms = self._done_ms(items, keys, pace, now_ms) + pace.usual(later) - spared
            if done_ms > first.deadline_ms:
                return unreachable(first.deadline_ms, done_ms, now_ms)
        for item in items:
            self._line.add(item)
            self._returning.came(item.key, 1, now_ms)
        return Admitted()

    def cancel(self, items: Iterable[int]) -> None:
        """Forget items whose caller has gone; those already running are not known here."""
        for item in items:
            self._line.remove(item)

    def renew(self, items: Iterable[int], deadline_ms: int) -> None:
        """Items have newer content, which is due at another moment; their turn is the same."""
        for item in items:
            self._line.due(item, deadline_ms)

    def expire(self, now_ms: int) -> tuple[int, ...]:
        """Drop and name the items whose deadline has passed; streams' places a while later."""
        late = tuple(self._line.late(now_ms, _FORBORNE_MS))
        self.cancel(late)
        return late

    def pause(self, now_ms: int) -> int:
        """Milliseconds that a free engine waits for more, unless it is asked again; 0: none."""
        waits, due_ms = len(self._line), self._line.due_ms
        if due_ms is None or self._control_expected(now_ms):
            return 0
        key, *others = self._line.keys
        missing, left_ms = self._returning.missing(key, self._line.classes[0], now_ms)
        cost = self._cost(key)
        if others or not missing or cost is None or waits >= self._max_batch:
            return 0
        takes_ms = cost.of(min(self._max_batch, waits + missing))
        return left_ms if now_ms + left_ms + (1 + _SLACK) * takes_ms <= due_ms else 0

    def next_batch(self, now_ms: int) -> Batch | None:
        """What to run on a free engine; None if nothing waits. Call `expire` and `pause` first.

        A stream's place may be in it whose frame is stale: it is to be left out, unless there is a
        newer one.
        """
        if not self._line:
            return None
        chosen = self._chosen(now_ms)
        cost, size = self._cost(chosen[0].key), len(chosen)
        self.cancel(waiting.item for waiting in chosen)
        self._probing.ran(chosen[0].key)
        self._busy_since_ms = now_ms
        self._busy_until_ms = now_ms + (0 if cost is None else round(cost.of(size)))
        self._running = chosen
        return Batch(chosen[0].key, tuple(waiting.item for waiting in chosen))

    def upcoming(self, now_ms: int) -> tuple[int, ...]:
        """The items that would run if the engine were free now, in order of service."""
        return tuple(one.item for one in self._chosen(now_ms)) if self._line else ()

    def idle(self, now_ms: int) -> None:
        """The engine has finished the batch that it was last given."""
        self._busy_until_ms = 0
        if not self._running:
            return
        members = [ran.priority for ran in self._running]
        self._owed.ran(members, self._line.classes, now_ms - self._busy_since_ms)
        self._usage.ran(members, now_ms - self._busy_since_ms, now_ms)
        ranks = [ran.rank for ran in self._running]
        turns = {rank[0]: self._turn_ms(rank, now_ms) for rank in self._line.ranks if rank[1]}
        self._turns.ran(ranks, now_ms - self._busy_since_ms, turns)
        # Who has items waiting still is not answered yet, and has no reason to come back.
        unanswered = self._line.requests
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

    def _chosen(self, now_ms: int) -> list[Waiting]:
        """What would run, in order of service. Something must wait."""
        return self._owed_batch(now_ms) or self._class_batch(self._line.classes[0], now_ms)

    def _batch(self, first: Rank, now_ms: int) -> list[Waiting]:
        """The same, with a rank that goes before the others, and of which something waits."""
        mates = self._line.mates(self._max_batch, (first,))
        cost = self._cost(mates[0].key)
        return mates if cost is None else mates[: self._size(mates, cost, now_ms)]

    def _class_batch(self, priority: int, now_ms: int) -> list[Waiting]:
        """The same, with a class that goes before the others."""
        calls, streams = (priority, False), (priority, True)
        ranks = self._line.ranks
        if streams not in ranks:
            return self._batch(calls, now_ms)
        if calls not in ranks or self._turns.owed(priority, self._turn_ms(streams, now_ms)):
            return self._batch(streams, now_ms)
        return self._batch(calls, now_ms)

    def _turn_ms(self, rank: Rank, now_ms: int) -> float:
        """What the next batch of a rank takes at most, of which something waits."""
        mates = self._line.mates(self._max_batch, (rank,))
        own = [mate for mate in mates if mate.rank == rank]
        cost = self._cost(own[0].key)
        return 0.0 if cost is None else cost.of(self._allowed(own, cost, now_ms))

    def _takes_ms(self, batch: Sequence[Waiting]) -> float:
        cost = self._cost(batch[0].key)
        return 0.0 if cost is None else cost.of(len(batch))

    def _owed_batch(self, now_ms: int) -> list[Waiting] | None:
        """What runs because its class has waited through enough of others'; None: nothing.

        CONTROL is overtaken only by who is owed a few batches: there are gaps between its calls.
        """
        classes = self._line.classes
        enough = _OWED_TO_OVERTAKE_CONTROL if classes[0] == _CONTROL else 1
        for priority in classes:
            if debt := self._owed.debt(priority):
                batch = self._class_batch(priority, now_ms)
                if enough * self._takes_ms(batch) <= debt:
                    return batch
        return None

    def _speed(self, priority: int, now_ms: int) -> float:
        """Share of the engine that a class may count on while it waits.

        What comes later and overtakes it is as much as there was of late; classes below have
        their kept share if they wait, but of CONTROL's time only what they are owed long since.
        """
        if priority == _CONTROL:
            return 1.0
        below = sum(waiting > priority for waiting in self._line.classes)
        left = 1 - self._usage.above(priority, now_ms) - self._kept_share * below
        return max(left, self._kept_share, _LEAST_SPEED)

    def _control_expected(self, now_ms: int) -> bool:
        return now_ms < self._control_until_ms

    def _done_ms(
        self, items: Sequence[Waiting], keys: Counter[Hashable], pace: Pace, now_ms: int
    ) -> float:
        """When a request would be answered that joins the line now.

        Args:
            items: the request's.
            keys: how many of each key these are.
            pace: what batches take now.
            now_ms: now.
        """
        ahead, own_ms = self._line.ahead(items[0]), pace.usual(keys)
        ahead_ms = pace.queued(ahead + keys, items[-1].key) - own_ms
        ahead_ms += self._overtaking_ms(items[0].priority, ahead_ms, now_ms)
        waits_ms = max(self._busy_until_ms - now_ms, 0) + ahead_ms
        # Only who waits can be overtaken.
        return now_ms + waits_ms / self._speed(items[0].priority, now_ms) + own_ms

    def _overtaking_ms(self, priority: int, ahead_ms: float, now_ms: int) -> float:
        """How long streams run before a call of their class, at most, beside what goes before it.

        Args:
            priority: the class.
            ahead_ms: what waits before the call takes.
            now_ms: now.
        """
        streams = (priority, True)
        if streams not in self._line.ranks:
            return 0.0
        takes_ms = self._turn_ms(streams, now_ms)
        running = [ran.rank for ran in self._running]
        took_ms = max(self._busy_until_ms, now_ms) - self._busy_since_ms
        return self._turns.overtaking_ms(priority, takes_ms, ahead_ms, running, took_ms)

    def _size(self, mates: Sequence[Waiting], cost: Cost, now_ms: int) -> int:
        """How many of the mates run now."""
        return self._allowed(mates[: _fitting(mates, cost, now_ms)], cost, now_ms)

    def _allowed(self, mates: Sequence[Waiting], cost: Cost, now_ms: int) -> int:
        """How many of the mates may run by the operator's limit."""
        limit_ms = self._limit_ms(now_ms)
        if limit_ms is None:
            return len(mates)
        # CONTROL is never held back, but for its streams while its calls come.
        last = (_CONTROL, now_ms >= self._calls_until_ms)
        own = sum(1 for _ in takewhile(lambda mate: mate.rank <= last, mates))
        return max(cost.within(limit_ms, len(mates)), own)

    def _limit_ms(self, now_ms: int) -> int | None:
        """Longest that a batch may take now with more in it than is free; None: no limit."""
        return self._max_block_ms if self._control_expected(now_ms) else None


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
