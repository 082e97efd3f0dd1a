"""A job on its way through the engine: its items' places, and what came of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.operations import batch_key
from tectum_server.worker.engine.computing.pictures import preparation
from tectum_server.worker.engine.policy.asking import Needs
from tectum_server.worker.engine.policy.cost import Cost, Preparation
from tectum_server.worker.engine.policy.line import Waiting
from tectum_server.worker.engine.scheduling.renewing import Renewed
from tectum_server.worker.engine.scheduling.telling import deadline_passed, item_failure, named
from tectum_server.worker.jobs import Item, ItemFailure, ItemOutput, Job, JobResult, Operation

__all__ = [
    "Place",
    "Progress",
    "jobs_of",
    "keys_of",
    "later",
    "needs_of",
    "preparations_of",
    "waiting_of",
]

_log = logging.getLogger(__name__)


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

    def stale(self, now: float) -> bool:
        """Whether it is a stream's place whose frame is of no use any more, if none is newer."""
        return self.job.turn is not None and self.job.deadline <= now

    def expire(self) -> None:
        """Its time is over."""
        if not self.done.done():
            _log.info("expired while waiting", extra=named(self.job))
            self.done.set_exception(deadline_passed())

    @property
    def result(self) -> JobResult:
        """What came of it."""
        return JobResult(
            version=self.predictor.bundle.version,
            outputs=tuple(output for output in self.outputs if output is not None),
            queue_seconds=self.queue_seconds,
            compute_seconds=self.compute_seconds,
            batch_size=self.batch_size,
        )


@dataclass(slots=True, eq=False)
class Place:
    """Where an item belongs."""

    progress: Progress
    index: int
    preparation: Preparation | None
    """What its content needs before it can be computed; None: nothing."""
    prepared: Item | None = None
    """Its content once it has been prepared."""

    @property
    def key(self) -> Hashable:
        """As `Waiting.key`."""
        return self.progress.keys[self.index]

    @property
    def item(self) -> Item:
        """Its content as it is now."""
        return self.prepared or self.progress.job.items[self.index]

    @property
    def work(self) -> tuple[Operation, Item]:
        """What is to be computed, as it is now."""
        return self.progress.job.operation_of(self.index), self.item

    @property
    def unready(self) -> bool:
        """Whether its content is still to be prepared."""
        return self.preparation is not None and self.prepared is None

    def change(self, preparation: Preparation | None) -> None:
        """Its job has other items now."""
        self.preparation, self.prepared = preparation, None

    def deliver(self, answer: ItemOutput | Exception) -> None:
        """What came of it."""
        progress = self.progress
        if isinstance(answer, Exception):
            progress.outputs[self.index] = item_failure(answer, progress.job, self.index)
        else:
            progress.outputs[self.index] = answer
        if not progress.done.done() and all(found is not None for found in progress.outputs):
            progress.done.set_result(None)


def jobs_of(places: Iterable[Place]) -> Iterable[Progress]:
    """Each one's job, once."""
    return {id(place.progress): place.progress for place in places}.values()


def keys_of(job: Job, predictor: Predictor) -> list[Hashable]:
    """Of each item, what it must share with others to run with them.

    Raises:
        Failure: as `batch_key`.
    """
    model = _named_version(job, predictor)
    return [
        batch_key(model, job.operation_of(index), item, predictor)
        for index, item in enumerate(job.items)
    ]


def preparations_of(job: Job, predictor: Predictor) -> list[Preparation | None]:
    """Of each item, what is to be done before it can run."""
    model = _named_version(job, predictor)
    return [preparation(model, item, predictor) for item in job.items]


def needs_of(
    progress: Progress,
    places: Mapping[int, Place],
    cost: Callable[[Hashable], Cost | None],
    now: float,
) -> Needs:
    """What is to be prepared of a job, by the places that wait."""
    own = [places[number] for number in progress.items if number in places]
    costs = [cost(place.preparation) for place in own if place.preparation]
    takes_ms = sum(one.of(1) for one in costs if one is not None)
    # What is stale is not prepared, and waits for nothing but what is newer.
    lacking = any(place.unready for place in own) and not progress.stale(now)
    return Needs(takes_ms, lacking)


def waiting_of(progress: Progress, numbers: Iterator[int]) -> list[Waiting]:
    """A job's items as the policy knows them, numbered."""
    job, request = progress.job, next(numbers)
    keys, needs = keys_of(job, progress.predictor), preparations_of(job, progress.predictor)
    return [
        Waiting(
            item=next(numbers),
            key=key,
            priority=job.priority,
            deadline_ms=int(job.deadline * 1000),
            request=request,
            turn_ms=None if job.turn is None else int(job.turn * 1000),
            preparation=preparation,
        )
        for key, preparation in zip(keys, needs, strict=True)
    ]


def later(job: Job, predictor: Predictor) -> dict[Hashable, int]:
    """How many items of which key the job's request will ask for once it is answered."""
    if job.sequel is None:
        return {}
    model = _named_version(job, predictor)
    return {batch_key(model, job.sequel.operation, Item(), predictor): job.sequel.items}


def _named_version(job: Job, predictor: Predictor) -> str:
    return f"{job.model}@{predictor.bundle.version}"
