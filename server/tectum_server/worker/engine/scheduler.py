"""The shell around the batching policy: a queue of jobs, one compute thread, and the clock.

What waits, who goes next and who is refused, `batching` decides; what a batch does,
`operations` does. Here jobs become items, results find their way back, and time is read.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tectum.v1 import errors_pb2
from tectum_core.predictor import CapabilityMissing, Predictor
from tectum_server.worker.engine.batching import Batch, Batching, Reason, Refused, Waiting
from tectum_server.worker.engine.cost import CostModel
from tectum_server.worker.engine.operations import batch_key, run_batch
from tectum_server.worker.failure import Failure
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import Item, ItemFailure, ItemOutput, Job, JobResult, Operation
from tectum_server.worker.metrics import EngineMetrics

__all__ = ["Scheduler"]

_log = logging.getLogger(__name__)

_REASONS = {
    Reason.QUEUE_FULL: errors_pb2.ERROR_REASON_QUEUE_FULL,
    Reason.DEADLINE_UNREACHABLE: errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE,
    Reason.DEADLINE_INFEASIBLE: errors_pb2.ERROR_REASON_DEADLINE_INFEASIBLE,
    Reason.DEADLINE_PASSED: errors_pb2.ERROR_REASON_DEADLINE_PASSED,
}
_MESSAGES = {
    Reason.QUEUE_FULL: "the queue is full",
    Reason.DEADLINE_UNREACHABLE: "with what waits now, the deadline cannot be met",
    Reason.DEADLINE_INFEASIBLE: "the deadline is shorter than the model's cost alone",
    Reason.DEADLINE_PASSED: "the deadline passed before the engine could take the request",
}


@dataclass(slots=True, eq=False)
class _Progress:
    """A job on its way."""

    job: Job
    predictor: Predictor
    arrived: float
    done: asyncio.Future[None]
    outputs: list[ItemOutput | ItemFailure | None]
    items: list[int] = field(default_factory=list)
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_size: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where an item belongs."""

    progress: _Progress
    index: int


class Scheduler:
    """Jobs in, results out, one batch at a time.

    Args:
        max_queued: items that may wait at once.
        max_batch: largest batch.
        metrics: where to observe.
        clock: seconds, monotonic; jobs' deadlines are on it.
    """

    def __init__(
        self,
        max_queued: int,
        max_batch: int,
        metrics: EngineMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.costs = CostModel()
        self._policy = Batching(max_queued, max_batch, self.costs.cost)
        self._metrics = metrics
        self._clock = clock
        self._places: dict[int, _Place] = {}
        self._numbers = itertools.count()
        self._wake = asyncio.Event()
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._running: asyncio.Task[None] | None = None
        self._in_flight = InFlight()

    def start(self) -> None:
        """Begin to serve the queue on the running event loop."""
        self._running = asyncio.get_running_loop().create_task(self._serve())

    async def close(self) -> None:
        """Finish what was admitted, then stop."""
        await self._in_flight.idle()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._compute.shutdown()

    async def submit(self, job: Job, predictor: Predictor) -> JobResult:
        """Queue a job and wait for its answer; cancelling withdraws what has not run yet.

        Raises:
            Failure: refused at admission, or expired while waiting.
        """
        progress = _Progress(
            job=job,
            predictor=predictor,
            arrived=self._clock(),
            done=asyncio.get_running_loop().create_future(),
            outputs=[None] * len(job.items),
        )
        self._admit(progress)
        with self._in_flight:
            try:
                await progress.done
            finally:
                self._forget(progress.items)
        outputs = tuple(output for output in progress.outputs if output is not None)
        return JobResult(
            version=predictor.bundle.version,
            outputs=outputs,
            queue_seconds=progress.queue_seconds,
            compute_seconds=progress.compute_seconds,
            batch_size=progress.batch_size,
        )

    def forget_model(self, model: str) -> None:
        """Drop what is known of the cost of a model's version, `name@version`."""
        self.costs.forget({k for k in self.costs.known if isinstance(k, tuple) and k[0] == model})

    def _admit(self, progress: _Progress) -> None:
        job = progress.job
        model = f"{job.model}@{progress.predictor.bundle.version}"
        waiting = [
            Waiting(
                item=next(self._numbers),
                key=batch_key(model, job.operation, item, progress.predictor),
                priority=job.priority,
                deadline_ms=int(job.deadline * 1000),
            )
            for item in job.items
        ]
        verdict = self._policy.admit(waiting, self._now_ms())
        if isinstance(verdict, Refused):
            after = verdict.retry_after_ms
            raise Failure(
                _REASONS[verdict.reason],
                _MESSAGES[verdict.reason],
                retry_after=None if after is None else after / 1000,
            )
        progress.items = [item.item for item in waiting]
        for index, number in enumerate(progress.items):
            self._places[number] = _Place(progress, index)
        self._metrics.set_depth(self._policy.depth())
        self._wake.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._drop_expired()
            batch = self._policy.next_batch(self._now_ms())
            self._metrics.set_depth(self._policy.depth())
            if batch is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            places = [self._places.pop(number) for number in batch.items]
            started = self._clock()
            work = [(p.progress.job.operation, p.progress.job.items[p.index]) for p in places]
            predictor = places[0].progress.predictor
            outputs = await loop.run_in_executor(self._compute, _run_safely, predictor, work)
            took = self._clock() - started
            self._policy.idle()
            self._account(batch, places, started, took)
            for place, output in zip(places, outputs, strict=True):
                self._deliver(place, output)

    def _account(self, batch: Batch, places: list[_Place], started: float, took: float) -> None:
        job = places[0].progress.job
        operation = job.operation.name
        self.costs.observe(batch.key, len(places), took * 1000)
        self._metrics.compute_duration.labels(job.model, operation).observe(took)
        self._metrics.batch_size.labels(job.model, operation).observe(len(places))
        for progress in {id(place.progress): place.progress for place in places}.values():
            progress.compute_seconds += took
            progress.batch_size = max(progress.batch_size, len(places))
        for place in places:
            waited = started - place.progress.arrived
            place.progress.queue_seconds = max(place.progress.queue_seconds, waited)
            self._metrics.queue_duration.labels(
                job.model, operation, place.progress.job.priority.name.lower()
            ).observe(waited)

    def _deliver(self, place: _Place, output: ItemOutput | ItemFailure) -> None:
        progress = place.progress
        progress.outputs[place.index] = output
        if not progress.done.done() and all(found is not None for found in progress.outputs):
            progress.done.set_result(None)

    def _drop_expired(self) -> None:
        for number in self._policy.expire(self._now_ms()):
            progress = self._places.pop(number).progress
            if not progress.done.done():
                progress.done.set_exception(
                    Failure(_REASONS[Reason.DEADLINE_PASSED], _MESSAGES[Reason.DEADLINE_PASSED])
                )

    def _forget(self, items: list[int]) -> None:
        self._policy.cancel(items)
        for number in items:
            self._places.pop(number, None)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _run_safely(
    predictor: Predictor, work: list[tuple[Operation, Item]]
) -> list[ItemOutput | ItemFailure]:
    """Run a batch; if it fails, run its items alone, so that one bad item costs only itself."""
    try:
        return list(run_batch(predictor, work))
    except Exception as error:
        if len(work) == 1:
            return [_failure(error)]
    return [_run_safely(predictor, [one])[0] for one in work]


def _failure(error: Exception) -> ItemFailure:
    if isinstance(error, Failure):
        return ItemFailure(error.reason, error.message, error.field)
    if isinstance(error, CapabilityMissing):
        return ItemFailure(errors_pb2.ERROR_REASON_CAPABILITY_MISSING, str(error))
    _log.error("an item failed in the engine", exc_info=error)
    return ItemFailure(
        errors_pb2.ERROR_REASON_INTERNAL, "the engine failed on this item; the log says why"
    )
