"""Requests as `simulation` has them: what comes, and what becomes of it.

Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from tectum_server.worker.engine.policy.batching import Reason
from tectum_server.worker.engine.policy.cost import Preparation

__all__ = ["Arrival", "Told"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes."""

    at_ms: int
    keys: tuple[Hashable, ...]
    """Of its items, as `Waiting.key`."""
    priority: int
    patience_ms: int
    """From its arrival to its deadline."""
    leaves_after_ms: int | None = None
    """When its caller hangs up, if it is not answered by then; None: never."""
    preparation: Preparation | None = None
    """What has to be done to each of its items before it can run; None: nothing."""


@dataclass(slots=True)
class Told:
    """What became of one."""

    arrival: Arrival
    reason: Reason | None = None
    """Why it was refused, or DEADLINE_PASSED where it expired while it waited."""
    answered_ms: int | None = None
    """When its last item was done; None: it was refused, expired or has left."""

    @property
    def in_time(self) -> bool:
        """Whether it was answered by its deadline."""
        due_ms = self.arrival.at_ms + self.arrival.patience_ms
        return self.answered_ms is not None and self.answered_ms <= due_ms

    @property
    def latency_ms(self) -> int | None:
        """From its arrival to its answer."""
        return None if self.answered_ms is None else self.answered_ms - self.arrival.at_ms
