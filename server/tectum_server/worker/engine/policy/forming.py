"""Which of those who wait form the next batch, or are owed to go before the first in order.

Pure bookkeeping, as `batching`, which says what waits. It is asked of all who wait, and of those
alone that are ready. Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import takewhile
from math import ceil

from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.policy.line import Line, Rank, Waiting
from tectum_server.worker.engine.policy.owed import Owed
from tectum_server.worker.engine.policy.turns import Turns

__all__ = ["CONTROL", "Forming"]

CONTROL = 1
"""The highest class, as `jobs.Priority` has it."""
_EXPECTED_MS = 10_000
"""So long after CONTROL came more of it is expected."""
_OWED_TO_OVERTAKE_CONTROL = 4
"""Batches that a class must be owed to go before CONTROL."""


class Forming:
    """Whose batch is next, and how large it is.

    Args:
        max_batch: as in `Batching`; the others, too.
        cost: of a batch.
        max_block_ms: while CONTROL comes.
        kept_share: of the engine, for each lower class that waits.
        lacking_ms: what the engine itself must still prepare of a batch would take: newer content.
        calls_block_ms: as `max_block_ms`, but only while CONTROL's calls come.
    """

    def __init__(
        self,
        max_batch: int,
        cost: Callable[[Hashable], Cost | None],
        max_block_ms: int | None,
        kept_share: float,
        lacking_ms: Callable[[Sequence[Waiting]], float] = lambda _: 0.0,
        calls_block_ms: int | None = None,
    ) -> None:
        self._max_batch = max_batch
        self._cost = cost
        self._max_block_ms = max_block_ms
        self._calls_block_ms = calls_block_ms
        self._lacking_ms = lacking_ms
        self._control_until_ms = self._calls_until_ms = 0
        self._owed = Owed(kept_share, CONTROL)
        self._turns = Turns()

    def asked(self, waiting: Waiting, now_ms: int) -> None:
        """Such a one has asked to wait."""
        if waiting.priority == CONTROL:
            self.expect_control(now_ms, calls=waiting.turn_ms is None)

    def expect_control(self, now_ms: int, *, calls: bool) -> None:
        """CONTROL has come, and its calls have if it was one."""
        self._control_until_ms = now_ms + _EXPECTED_MS
        if calls:
            self._calls_until_ms = self._control_until_ms

    def ran(self, batch: Sequence[Waiting], line: Line, took_ms: int, now_ms: int) -> None:
        """A batch has run, while all of a line waited."""
        self._owed.ran([ran.priority for ran in batch], line.classes, took_ms)
        turns = {rank[0]: self._turn_ms(line, rank, now_ms) for rank in line.ranks if rank[1]}
        self._turns.ran([ran.rank for ran in batch], took_ms, turns)

    def next(self, line: Line, now_ms: int) -> list[Waiting]:
        """What of a line would run now, in order of service; nothing if it is empty."""
        if not line:
            return []
        return self._owed_batch(line, now_ms) or self._class_batch(line, line.classes[0], now_ms)

    def owed(self, line: Line, now_ms: int) -> tuple[int, ...]:
        """The items of that which are owed to go before the first in order."""
        batch = self.next(line, now_ms)
        if not batch or batch[0].rank == line.ranks[0]:
            return ()
        return tuple(one.item for one in batch if one.rank == batch[0].rank)

    def overtaking(
        self,
        line: Line,
        priority: int,
        ahead_ms: float,
        running: Sequence[Waiting],
        took_ms: int,
        now_ms: int,
    ) -> tuple[float, int]:
        """How long streams run before a call of their class, at most, and how many places' frames.

        Args:
            line: all who wait.
            priority: the class.
            ahead_ms: what waits before the call takes, but for these.
            running: the batch that runs; empty: the engine is free.
            took_ms: what that will have taken.
            now_ms: now.
        """
        streams = (priority, True)
        if streams not in line.ranks:
            return 0.0, 0
        turn = self._turn(line, streams, now_ms)
        turn_ms, least_ms = self.takes_ms(turn), self.takes_ms(turn[:1])
        ranks = [ran.rank for ran in running]
        all_ms = self._turns.overtaking_ms(priority, turn_ms, least_ms, ahead_ms, ranks, took_ms)
        return all_ms, ceil(all_ms / turn_ms * len(turn)) if all_ms else 0

    def takes_ms(self, batch: Sequence[Waiting]) -> float:
        """What a batch takes, with what it lacks."""
        cost = self._cost(batch[0].key)
        return self._lacking_ms(batch) + (0.0 if cost is None else cost.of(len(batch)))

    def control_expected(self, now_ms: int) -> bool:
        """Whether CONTROL has come of late."""
        return now_ms < self._control_until_ms

    def calls_expected(self, now_ms: int) -> bool:
        """Whether calls of CONTROL's have come of late."""
        return now_ms < self._calls_until_ms

    def limit_ms(self, now_ms: int) -> int | None:
        """Longest that a batch may take now with more in it than is free; None: no limit."""
        limits = (
            self._max_block_ms if self.control_expected(now_ms) else None,
            self._calls_block_ms if self.calls_expected(now_ms) else None,
        )
        return min((limit for limit in limits if limit is not None), default=None)

    def _class_batch(self, line: Line, priority: int, now_ms: int) -> list[Waiting]:
        """What would run with a class that goes before the others, of which something waits."""
        calls, streams = (priority, False), (priority, True)
        ranks = line.ranks
        if streams not in ranks:
            return self._batch(line, calls, now_ms)
        turn_ms = self._turn_ms(line, streams, now_ms)
        if calls not in ranks or self._turns.owed(priority, turn_ms):
            return self._batch(line, streams, now_ms)
        return self._batch(line, calls, now_ms)

    def _batch(self, line: Line, first: Rank, now_ms: int) -> list[Waiting]:
        """The same with a rank that does."""
        mates = line.mates(self._max_batch, (first,))
        cost = self._cost(mates[0].key)
        if cost is None:
            return mates
        return mates[: self._allowed(mates[: _fitting(mates, cost, now_ms)], cost, now_ms)]

    def _turn(self, line: Line, rank: Rank, now_ms: int) -> list[Waiting]:
        """The next batch of a rank at most, of which something waits."""
        mates = line.mates(self._max_batch, (rank,))
        own = [mate for mate in mates if mate.rank == rank]
        cost = self._cost(own[0].key)
        return own if cost is None else own[: self._allowed(own, cost, now_ms)]

    def _turn_ms(self, line: Line, rank: Rank, now_ms: int) -> float:
        """What that takes."""
        return self.takes_ms(self._turn(line, rank, now_ms))

    def _owed_batch(self, line: Line, now_ms: int) -> list[Waiting] | None:
        """What runs because its class has waited through enough of others'; None: nothing.

        CONTROL is overtaken only by who is owed a few batches: there are gaps between its calls.
        """
        classes = line.classes
        enough = _OWED_TO_OVERTAKE_CONTROL if classes[0] == CONTROL else 1
        for priority in classes:
            if debt := self._owed.debt(priority):
                batch = self._class_batch(line, priority, now_ms)
                if enough * self.takes_ms(batch) <= debt:
                    return batch
        return None

    def _allowed(self, mates: Sequence[Waiting], cost: Cost, now_ms: int) -> int:
        """How many of the mates may run by the operator's limit."""
        limit_ms = self.limit_ms(now_ms)
        if limit_ms is None:
            return len(mates)
        # CONTROL is never held back, but for its streams while its calls come.
        last = (CONTROL, not self.calls_expected(now_ms))
        own = sum(1 for _ in takewhile(lambda mate: mate.rank <= last, mates))
        most = cost.within(limit_ms, len(mates))
        while most > 1 and cost.of(most) + self._lacking_ms(mates[:most]) > limit_ms:
            most -= 1
        return max(most, own)


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
