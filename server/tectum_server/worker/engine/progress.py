"""A job on its way through the scheduler, and where each of its items belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.renewing import Renewed
from tectum_server.worker.jobs import Item, ItemFailure, ItemOutput, Job, Operation

__all__ = ["Place", "Progress"]


@dataclass(slots=True, eq=False)
class Progress:
    """A job on its way."""

    job: Job
    """As it is now: what is newer takes the place of its items, and its deadline."""
    predictor: Predictor
    arrived: float
    done: asyncio.Future[None]
    outputs: list[ItemOutput | ItemFailure | None]
    renewed: Renewed
    items: list[int] = field(default_factory=list)
    keys: list[Hashable] = field(default_factory=list)
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_size: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where an item belongs."""

    progress: Progress
    index: int

    @property
    def work(self) -> tuple[Operation, Item]:
        """What is to be computed, as it is now."""
        job = self.progress.job
        return job.operation_of(self.index), job.items[self.index]
