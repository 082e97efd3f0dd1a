"""Whether somebody who ought to be heard of again and again still is.

Pure bookkeeping, without a clock: whoever listens says when it has had a turn itself. A machine so
busy that nobody gets anywhere delays the listener as well, and is not mistaken for a silence.
"""

from __future__ import annotations

__all__ = ["Pulse"]


class Pulse:
    """What is heard of one other.

    Args:
        patience: turns of the listener's own without a word, after which it is lost.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._silent = 0

    @property
    def lost(self) -> bool:
        """Whether it has not been heard of for too long."""
        return self._silent >= self._patience

    def turn(self) -> None:
        """The listener had a turn, in which it has heard whatever was there."""
        self._silent += 1

    def heard(self) -> bool:
        """It is heard of; gives whether it was lost until now."""
        was_lost, self._silent = self.lost, 0
        return was_lost
