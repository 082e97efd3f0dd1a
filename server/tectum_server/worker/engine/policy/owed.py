"""What the engine owes to classes that wait while others run, so that none waits for ever.

CONTROL overtakes, and INTERACTIVE overtakes BULK; with more of them than the engine can do, who is
overtaken would never be served. So each class below CONTROL has a share of the engine's time for as
long as something of it waits: every batch runs up a debt to those who waited through it, and a
class whose next batch is owed goes first. What a class gets in others' batches counts.

Pure bookkeeping, as `batching`. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["Owed"]


class Owed:
    """Debts by class.

    Args:
        share: of the engine's time, for each class below the highest; 0: none, and a class may
            wait for ever.
        highest: the class that nobody overtakes and nothing is owed to.
    """

    def __init__(self, share: float, highest: int) -> None:
        self._share = share
        self._highest = highest
        self._debts: dict[int, float] = {}

    def ran(self, members: Collection[int], waited: Iterable[int], took_ms: float) -> None:
        """A batch has run.

        Args:
            members: the classes of its items, one for each.
            waited: classes of which something waits still.
            took_ms: how long it ran.
        """
        debts = {}
        for waiting in set(waited) - {self._highest}:
            got = sum(member == waiting for member in members) / len(members)
            debts[waiting] = max(0.0, self.debt(waiting) + took_ms * (self._share - got))
        self._debts = debts  # who waits for nothing is owed nothing

    def debt(self, priority: int) -> float:
        """Milliseconds that a class is owed."""
        return self._debts.get(priority, 0.0)
