"""Whose turn it is within a class: its calls', or its streams'.

A call has a deadline, and a stream's place none that counts for its order: over what the engine can
do, streams always wait, the longest for as long as a round of all of them takes. Ordered by one
measure, either calls would stand behind whoever waits longer than they can, or streams behind calls
with nearer deadlines, again and again. So calls go first, and every batch with calls in it runs up
a debt to the streams of the class that wait through it, half of what it took; once their next batch
is owed, they go first. What they are owed beyond that, because other classes went first, is
forgotten. Calls that take less than half of their class's time wait for no more than the batch that
runs; those that would take more, and the streams, have half of it each.

Pure bookkeeping, as `batching`. Times are milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from tectum_server.worker.engine.policy.line import Rank

__all__ = ["Turns"]

_HALF = 0.5


class Turns:
    """What streams are owed, by class."""

    def __init__(self) -> None:
        self._debts: dict[int, float] = {}

    def ran(self, members: Collection[Rank], took_ms: float, waiting: Mapping[int, float]) -> None:
        """A batch has run.

        Args:
            members: the ranks of its items, one for each.
            took_ms: how long it ran.
            waiting: of each class whose streams wait still what their next batch takes at most;
                who neither waits nor has just run is owed nothing.
        """
        back = {
            priority: self._debts.get(priority, 0.0) for priority, streams in members if streams
        }
        self._debts = {
            priority: self._after(priority, members, took_ms, turn_ms)
            for priority, turn_ms in (back | dict(waiting)).items()
        }

    def owed(self, priority: int, turn_ms: float) -> bool:
        """Whether a class's streams go before its calls, if both wait.

        Args:
            priority: the class.
            turn_ms: what the streams' next batch takes at most.
        """
        debt = self._debts.get(priority, 0.0)
        return debt > 0 and debt >= turn_ms

    def overtaking_ms(
        self,
        priority: int,
        turn_ms: float,
        least_ms: float,
        ahead_ms: float,
        running: Collection[Rank],
        took_ms: float,
    ) -> float:
        """How long streams run, at most, before a call of their class that asks now.

        Args:
            priority: the class.
            turn_ms: what each of the streams' batches takes at most.
            least_ms: what each takes at least.
            ahead_ms: what goes before the call, but for what runs.
            running: the ranks of the batch that runs; none: the engine is free.
            took_ms: what it will have taken.
        """
        owed = self._after(priority, running, took_ms, turn_ms) + _HALF * ahead_ms
        if turn_ms <= 0 or owed < turn_ms:
            return 0.0
        # Before the last of their batches a whole turn is owed still; those before may be smaller.
        before_ms = (owed - turn_ms) / (1 - _HALF)
        return turn_ms + (before_ms if least_ms < turn_ms else before_ms // turn_ms * turn_ms)

    def _after(
        self, priority: int, members: Collection[Rank], took_ms: float, turn_ms: float
    ) -> float:
        """What a class's streams are owed after a batch."""
        debt, counts = self._debts.get(priority, 0.0), Counter(members)
        more = counts[(priority, False)] - counts[(priority, True)]
        if more > 0:
            debt = min(debt, turn_ms)
        return max(0.0, debt + took_ms * _HALF * more / max(1, len(members)))
