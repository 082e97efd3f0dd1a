"""What becomes of a request that asks to wait: it does, or why it does not.

Pure bookkeeping, as `batching`. Times are whole milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

__all__ = ["Admitted", "Forecast", "Reason", "Refused", "infeasible", "unreachable"]


class Reason(Enum):
    """Why a request is not taken."""

    QUEUE_FULL = "queue full"
    DEADLINE_UNREACHABLE = "deadline unreachable"
    DEADLINE_INFEASIBLE = "deadline infeasible"
    DEADLINE_PASSED = "deadline passed"


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


def infeasible(deadline_ms: int, done_ms: float, since_ms: int) -> Refused:
    """Done too late, whatever waits."""
    forecast = Forecast.of(deadline_ms, done_ms, since_ms, alone=True)
    return Refused(Reason.DEADLINE_INFEASIBLE, forecast=forecast)


def unreachable(deadline_ms: int, done_ms: float, now_ms: int, *, alone: bool = False) -> Refused:
    """Done too late, as things are."""
    return Refused(
        Reason.DEADLINE_UNREACHABLE,
        retry_after_ms=max(1, round(done_ms - deadline_ms)),
        forecast=Forecast.of(deadline_ms, done_ms, now_ms, alone=alone),
    )
