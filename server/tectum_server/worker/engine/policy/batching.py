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
- A batch is formed when the engine is free, from what is ready: the first in order, and
  whoever has the same key, in order, as far as the bucket goes and no member's deadline breaks.
- What is to be prepared is so beside the engine, in the same order (`preparing`), but for one batch
  of who is owed to go first; two batches ahead of the engine at most. The engine waits for no
  preparation while anything is ready.
- An engine that takes the next batch while it computes one is given the largest there may be, of
  calls alone, and nothing while CONTROL comes.
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

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tectum_server.worker.engine.policy.cost import Cost, Preparation
from tectum_server.worker.engine.policy.forming import CONTROL, Forming
from tectum_server.worker.engine.policy.line import Line, Waiting
from tectum_server.worker.engine.policy.pace import Pace, overlapped
from tectum_server.worker.engine.policy.preparing import Begun, Preparing
from tectum_server.worker.engine.policy.probing import Probing
from tectum_server.worker.engine.policy.reckoning import Ahead, Reckoning, preparations
from tectum_server.worker.engine.policy.returning import Returning
from tectum_server.worker.engine.policy.under_way import UnderWay
from tectum_server.worker.engine.policy.usage import Usage
from tectum_server.worker.engine.policy.verdicts import (
    Admitted,
    Forecast,
    Reason,
    Refused,
    infeasible,
    unreachable,
)
from tectum_server.worker.shares import has_room

__all__ = ["Admitted", "Batch", "Batching", "Forecast", "Reason", "Refused", "Waiting"]

_SLACK = 0.25
"""Of a batch's cost that must be left before every deadline when a free engine waits: costs are
medians, and the answer has a way to go."""
_FORBORNE_MS = 1000
"""So long after its frame went stale a stream's place is given up, if its turn has not come: its
client shall hear of it, and its newest frame asks anew."""
_AHEAD = 2
"""Batches' worth of items that may be prepared before the engine takes them."""


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
        kept_share: of the engine, for each lower class that waits.
        calls_block_ms: the same limit while CONTROL calls come, but not for CONTROL's streams.
    """

    def __init__(
        self,
        max_queued: int,
        max_batch: int,
        cost: Callable[[Hashable], Cost | None],
        max_block_ms: int | None = None,
        kept_share: float = 0.0,
        calls_block_ms: int | None = None,
    ) -> None:
        self._max_queued = max_queued
        self._max_batch = max_batch
        self._cost = cost
        self._forming = Forming(
            max_batch, cost, max_block_ms, kept_share, self._lacking_ms, calls_block_ms
        )
        self._probing = Probing()
        self._line = Line()
        self._preparing = Preparing(_AHEAD * max_batch)
        self._under_way = UnderWay()
        self._returning = Returning()
        self._usage = Usage()
        self._reckoning = Reckoning(
            cost,
            max_batch,
            kept_share,
            self._line,
            self._preparing,
            self._forming,
            self._under_way,
            self._usage,
        )

    def __len__(self) -> int:
        return len(self._line)

    def may_wait(self, now_ms: int) -> bool:
        """Whether a batch may: no call waits for it to end, and none of CONTROL's is expected."""
        return not self._line.calls and not self._forming.calls_expected(now_ms)

    def expect_control(self, now_ms: int) -> None:
        """A CONTROL call came that does not ask to wait, for it was refused before."""
        self._forming.expect_control(now_ms, calls=True)

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
        first, count = items[0], len(items)
        self._forming.asked(first, now_ms)
        if first.deadline_ms <= now_ms:
            return Refused(Reason.DEADLINE_PASSED)
        keys, free = Counter(item.key for item in items), Pace(self._cost, self._max_batch)
        before = preparations(items)
        # Of what it costs itself, so much less than usual if all goes as well as it did of late.
        own = overlapped(free.best(before), free.best(keys), count) + free.best(later)
        usual = overlapped(free.usual(before), free.usual(keys), count) + free.usual(later)
        spared = usual - own
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
        pace = self._reckoning.pace(first.priority, now_ms)
        if first.turn_ms is None:
            if not has_room(self._max_queued, self._line.calls, count, first.priority):
                after_ms = pace.usual(self._line.keys)
                return Refused(Reason.QUEUE_FULL, max(1, round(after_ms)))
            done_ms = (
                self._reckoning.done_ms(items, keys, pace, now_ms) + pace.usual(later) - spared
            )
            if done_ms > first.deadline_ms:
                return unreachable(first.deadline_ms, done_ms, now_ms)
        for item in items:
            self._line.add(item)
            self._preparing.add(item)
            self._returning.came(item.key, 1, now_ms)
        return Admitted()

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._line) or bool(self._under_way.members)

    def dues(self, priority: int) -> list[int]:
        """By when the calls' items of a class that wait are due, the earliest first."""
        return [one.deadline_ms for one in self._line.of((priority, False))]

    def ahead(self, priority: int, deadline_ms: int, now_ms: int) -> Ahead:
        """What goes before one more call of a class, due then, that needs no preparing.

        Args:
            priority: its class.
            deadline_ms: by when it is due.
            now_ms: now.
        """
        return self._reckoning.ahead(priority, deadline_ms, now_ms)

    @property
    def usual(self) -> Hashable:
        """The key of most who wait, or of who runs; None: nobody does."""
        if waiting := self._line.keys.most_common(1):
            return waiting[0][0]
        return next((one.key for one in self._under_way.members), None)

    def cancel(self, items: Iterable[int]) -> None:
        """Forget items whose caller has gone; those already running are not known here."""
        for item in items:
            self._line.remove(item)
            self._preparing.remove(item)

    def renew(self, needs: Mapping[int, Preparation | None], deadline_ms: int) -> None:
        """Items have newer content, of the same key and due at another moment, and the same turn.

        Args:
            needs: of each what is to be done to its content before it can run.
            deadline_ms: by when they are due.
        """
        for item, preparation in needs.items():
            waiting = self._line.get(item)
            if waiting is not None:
                newer = replace(waiting, deadline_ms=deadline_ms, preparation=preparation)
                self._line.remove(item)
                self._line.add(newer)
                self._preparing.change(newer)

    @property
    def unready(self) -> bool:
        """Whether anything waits to be prepared."""
        return bool(self._preparing.unready)

    def begin_preparing(self, now_ms: int) -> Begun | None:
        """What to prepare now that nothing is under way; None: nothing, as things are."""
        begun = self._preparing.begin(self._forming.owed(self._line, now_ms))
        under_way = self._preparing.under_way
        if begun is not None and under_way is not None:
            took_ms = Pace(self._cost, 1).usual(preparations([under_way]))
            self._preparing.until_ms = now_ms + round(took_ms)
        return begun

    def end_preparing(self) -> bool:
        """The preparation under way has ended; whether its item waits, with the same content."""
        return self._preparing.end()

    def expire(self, now_ms: int) -> tuple[int, ...]:
        """Drop and name the items whose deadline has passed; streams' places a while later."""
        late = tuple(self._line.late(now_ms, _FORBORNE_MS))
        self.cancel(late)
        return late

    def pause(self, now_ms: int) -> int:
        """Milliseconds that a free engine waits for more, unless it is asked again; 0: none."""
        waits, due_ms = len(self._line), self._line.due_ms
        if due_ms is None or self._forming.control_expected(now_ms):
            return 0
        key, *others = self._line.keys
        missing, left_ms = self._returning.missing(key, self._line.classes[0], now_ms)
        cost = self._cost(key)
        if others or not missing or cost is None or waits >= self._max_batch:
            return 0
        takes_ms = cost.of(min(self._max_batch, waits + missing))
        return left_ms if now_ms + left_ms + (1 + _SLACK) * takes_ms <= due_ms else 0

    def next_batch(self, now_ms: int) -> Batch | None:
        """What to run on a free engine, or on one that takes more; None: nothing is ready.

        Call `expire` and `pause` first.

        A stream's place may be in it whose frame is stale: it is to be left out, unless there is a
        newer one.
        """
        chosen = self._forming.next(self._preparing.ready, self._reckoning.free_ms(now_ms))
        if not chosen:
            return None
        takes_ms = self._forming.takes_ms(chosen)
        self.cancel(waiting.item for waiting in chosen)
        self._probing.ran(chosen[0].key)
        self._under_way.began(chosen, round(takes_ms), now_ms)
        return Batch(chosen[0].key, tuple(waiting.item for waiting in chosen))

    def delayed(self, waits_ms: float) -> None:
        """The batch that was given last begins so much later, at most."""
        self._under_way.delayed(math.ceil(waits_ms))

    def upcoming(self, now_ms: int) -> tuple[int, ...]:
        """The items that would run were the engine free and all ready, in order of service."""
        return tuple(waiting.item for waiting in self._forming.next(self._line, now_ms))

    def takes_more(self, now_ms: int) -> bool:
        """Whether an engine that computes a batch is to be given another one behind it.

        Only as large a one as there may be, which gains nothing by waiting for others; none of
        streams, whose frames shall be as new as can be when they are computed; and none while
        CONTROL comes, which would have to wait for both.
        """
        if self._forming.control_expected(now_ms):
            return False
        chosen = self._forming.next(self._preparing.ready, self._reckoning.free_ms(now_ms))
        return len(chosen) >= self._max_batch and all(one.turn_ms is None for one in chosen)

    def expected_ms(self, key: Hashable, items: int) -> float | None:
        """What a batch takes, or a preparation; None: nobody knows yet."""
        cost = self._cost(key)
        return None if cost is None else cost.of(items)

    def idle(self, now_ms: int, *, last: bool = False) -> None:
        """The engine has finished the first batch it was given; or the last came to nothing."""
        ran = self._under_way.ended(now_ms, last=last)
        if ran is None:
            return
        self._forming.ran(ran.members, self._line, ran.took_ms, now_ms)
        self._usage.ran([one.priority for one in ran.members], ran.took_ms, now_ms)
        # Who has items waiting still is not answered yet, and has no reason to come back.
        unanswered = self._line.requests | self._under_way.requests
        back = [one for one in ran.members if one.request not in unanswered]
        key = ran.members[0].key
        cost = self._cost(key) or Cost(0.0, 0.0)
        self._returning.answered(
            key,
            len(back),
            max((one.priority for one in back), default=CONTROL),
            cost.fixed_ms,
            ran.took_ms,
            now_ms,
        )

    def _lacking_ms(self, batch: Sequence[Waiting]) -> float:
        """What the engine prepares itself of a batch: content that came after its item's turn."""
        ready, unready = self._preparing.ready, self._preparing.unready
        lacking = (one for one in batch if one.item in unready and one.item in ready)
        return Pace(self._cost, 1).usual(preparations(lacking))
