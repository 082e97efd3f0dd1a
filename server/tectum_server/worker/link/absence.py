"""How long an engine is likely to be away yet: what is left of what its last start took.

Pure bookkeeping, without a clock: the caller passes `now`, seconds.
"""

from __future__ import annotations

__all__ = ["FIRST_GUESS", "Absence"]

FIRST_GUESS = 8.0
"""Seconds that a start takes of which nothing is known: libraries and a small bundle take about so
long on two cores that have other things to do as well."""
_AROUND = 0.5
"""Seconds until its end is noticed, another is begun, and that is found."""
_SOONEST, _LATEST = 0.5, 50.0
"""Within which a caller is told to come back: while it still waits, a minute where the SDK is left
to itself, and not before the end where that is known, for it may have two tries only."""
_ROUNDING = 1e-6
"""Seconds: who was told when to ask comes then, and not a rounding error sooner."""


class Absence:
    """An engine's absences; it is away in the beginning."""

    def __init__(self) -> None:
        self._start = FIRST_GUESS
        self._since: float | None = None
        """When it was lost; None: it is there, or nobody has looked yet."""

    def begin(self, now: float) -> None:
        """It is away from now on, unless it is already."""
        if self._since is None:
            self._since = now

    def end(self, start: float | None) -> None:
        """It serves.

        Args:
            start: seconds that its start took; None: nobody knows.
        """
        self._since = None
        self._start = self._start if start is None else start

    def left(self, now: float) -> float:
        """Seconds after which to ask again.

        Where it takes longer than the last time, ever later: half as long as it is away.
        """
        away = 0.0 if self._since is None else now - self._since
        left = self._start + _AROUND - away
        return min(max(left if left > _ROUNDING else away / 2, _SOONEST), _LATEST)
