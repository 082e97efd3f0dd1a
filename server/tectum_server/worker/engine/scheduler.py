"""The shell around the batching policy: a queue of jobs, two threads, and the clock.

One thread prepares what the other one computes next. What waits, who goes next and who is refused,
`batching` decides; what a batch does, `operations` does. Here jobs become items, results find
their way back, and time is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.asking import Needs, waits
from tectum_server.worker.engine.batching import Batch, Batching, Refused, Waiting
from tectum_server.worker.engine.cost import CostModel
from tectum_server.worker.engine.preparing import Begun
from tectum_server.worker.engine.progress import (
    Place,
    Progress,
    jobs_of,
    keys_of,
    later,
    preparations_of,
)
from tectum_server.worker.engine.recording import Recorder
from tectum_server.worker.engine.renewing import Ahead, Renewed, freshen
from tectum_server.worker.engine.running import prepare_safely, run_safely
from tectum_server.worker.engine.stuck import patience, within
from tectum_server.worker.engine.telling import named, out_of_service, refusal
from tectum_server.worker.failure import Failure
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import Content, Job, JobResult, Renewal
from tectum_server.worker.metrics import EngineMetrics

__all__ = ["Scheduler"]

_log = logging.getLogger(__name__)


class Scheduler:
    """Jobs in, results out, one batch at a time.

    Args:
        max_queued: items that may wait at once.
        max_batch: largest batch.
        metrics: where to observe.
        clock: seconds, monotonic; jobs' deadlines are on it.
        max_block_ms: as in `batching`.
        kept_share: as in `batching`.
        compute_timeout: seconds that any batch or preparation may take, or ten times what it was
            predicted to if that is longer; then its thread is stuck, and the service has failed.
        recorder: where to write what comes and what it takes; None: nowhere.
        on_failure: called if a fault of its own ends the service; from then on every job is
            refused.
    """

    def __init__(
        self,
        max_queued: int,
        max_batch: int,
        metrics: EngineMetrics,
        clock: Callable[[], float] = time.monotonic,
        max_block_ms: int | None = None,
        kept_share: float = 0.0,
        compute_timeout: float = 30.0,
        recorder: Recorder | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.costs = CostModel()
        self._policy = Batching(max_queued, max_batch, self.costs.cost, max_block_ms, kept_share)
        self._metrics = metrics
        self._recorder = recorder
        self._clock = clock
        self._on_failure = on_failure
        self._compute_timeout = compute_timeout
        self._failed = False
        self._places: dict[int, Place] = {}
        self._numbers = itertools.count()
        self._wake = asyncio.Event()
        self._unready = asyncio.Event()
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._prepare = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._running: asyncio.Task[None] | None = None
        self._in_flight = InFlight()
        self._under_way: set[Progress] = set()
        self._ahead = Ahead(self._coming)

    def start(self) -> None:
        """Begin to serve the queue on the running event loop."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Finish what was admitted, then stop."""
        await self._in_flight.idle()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for threads in (self._compute, self._prepare):
            threads.shutdown(wait=not self._failed)  # one that is stuck does not come back
        if self._recorder is not None:
            self._recorder.close()

    async def submit(
        self, job: Job, predictor: Predictor, renewal: Renewal | None = None
    ) -> JobResult:
        """Queue a job and wait for its answer; cancelling withdraws what has not run yet.

        Args:
            job: what to compute.
            predictor: by which model.
            renewal: gives newer content while the job waits.

        Raises:
            Failure: refused at admission, expired while waiting, or the service has failed.
        """
        if self._failed:
            raise out_of_service()
        progress = Progress(
            job=job,
            predictor=predictor,
            arrived=self._clock(),
            done=asyncio.get_running_loop().create_future(),
            outputs=[None] * len(job.items),
            renewed=Renewed(
                renewal,
                lambda content: self._renew(progress, content),
                lambda: self._needs(progress),
            ),
        )
        self._admit(progress)
        self._under_way.add(progress)
        with self._in_flight:
            try:
                await progress.done
            finally:
                self._under_way.discard(progress)
                self._forget(progress.items)
                await progress.renewed.close()
        return progress.result

    def forget_model(self, model: str) -> None:
        """Drop what is known of the cost of a model's version, `name@version`."""
        self.costs.forget({k for k in self.costs.known if isinstance(k, tuple) and k[0] == model})

    def _admit(self, progress: Progress) -> None:
        job = progress.job
        request = next(self._numbers)
        waiting = [
            Waiting(
                item=next(self._numbers),
                key=key,
                priority=job.priority,
                deadline_ms=int(job.deadline * 1000),
                request=request,
                turn_ms=None if job.turn is None else int(job.turn * 1000),
                preparation=preparation,
            )
            for key, preparation in zip(
                keys_of(job, progress.predictor),
                preparations_of(job, progress.predictor),
                strict=True,
            )
        ]
        arrived, now_ms = None if job.arrived is None else int(job.arrived * 1000), self._now_ms()
        if self._recorder is not None:
            patience = waiting[0].deadline_ms - now_ms
            self._recorder.came(now_ms, [one.key for one in waiting], job.priority, patience)
        verdict = self._policy.admit(waiting, now_ms, arrived, later(job, progress.predictor))
        if isinstance(verdict, Refused):
            _log.info("refused", extra={**named(job), "reason": verdict.reason.value})
            raise refusal(verdict)
        progress.items = [item.item for item in waiting]
        progress.keys = [item.key for item in waiting]
        for index, item in enumerate(waiting):
            self._places[item.item] = Place(progress, index, item.preparation)
        self._metrics.set_depth(self._policy.depth())
        self._wake.set()
        self._see_to_preparing()
        self._ahead.look()

    def _renew(self, progress: Progress, content: Content) -> bool:
        """Put newer items in a job's place, if all of it still waits and they are of its kinds."""
        if not self._waits_whole(progress):
            return False
        job = replace(progress.job, items=content.items, deadline=content.deadline)
        try:
            if keys_of(job, progress.predictor) != progress.keys:
                return False
        except Failure:
            return False
        progress.job = job
        needs = dict(zip(progress.items, preparations_of(job, progress.predictor), strict=True))
        for number, preparation in needs.items():
            self._places[number].change(preparation)
        self._policy.renew(needs, int(job.deadline * 1000))
        self._wake.set()
        self._see_to_preparing()
        return True

    def _coming(self) -> tuple[list[Renewed], float | None]:
        """What runs next, as things are, if it may still change; and what that takes."""
        coming = [self._places[number] for number in self._policy.upcoming(self._now_ms())]
        jobs = [job.renewed for job in jobs_of(coming) if self._waits_whole(job)]
        return jobs, self._expected_ms(coming) if coming else None

    def _needs(self, progress: Progress) -> Needs:
        """What is to be prepared of a job."""
        places = [self._places[number] for number in progress.items if number in self._places]
        costs = [self.costs.cost(place.preparation) for place in places if place.preparation]
        takes_ms = sum(cost.of(1) for cost in costs if cost is not None)
        # What is stale is not prepared, and waits for nothing but what is newer.
        lacking = any(place.unready for place in places) and not progress.stale(self._clock())
        return Needs(takes_ms, lacking)

    def _waits_whole(self, progress: Progress) -> bool:
        """Whether nothing of a job runs or has run, so that it may still become another's."""
        return all(number in self._places for number in progress.items)

    def _expected_ms(self, places: list[Place]) -> float | None:
        """What a batch of these takes; None: nobody knows yet."""
        cost = self.costs.cost(places[0].progress.keys[places[0].index])
        return None if cost is None else cost.of(len(places))

    async def _run(self) -> None:
        """Serve; should that ever end by itself, let nobody wait for what will not come."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve())
                group.create_task(self._serve_unready())
        except Exception:
            _log.exception("the scheduler failed; this engine computes no more")
            self._failed = True
            for progress in self._under_way:
                if not progress.done.done():
                    progress.done.set_exception(out_of_service())
            self._on_failure()

    async def _serve(self) -> None:
        while True:
            self._drop_expired()
            pause = self._policy.pause(self._now_ms())
            batch = None if pause else self._policy.next_batch(self._now_ms())
            self._metrics.set_depth(self._policy.depth())
            self._see_to_preparing()
            if batch is None:
                await self._woken(pause / 1000 if pause else None)
                continue
            await self._run_one(batch)

    async def _run_one(self, batch: Batch) -> None:
        """Compute a batch; nothing of it is held while the next one is waited for."""
        loop = asyncio.get_running_loop()
        places = await self._begun(batch)
        if not places:
            self._policy.idle(self._now_ms())
            return
        started = self._clock()
        work, predictor = [place.work for place in places], places[0].progress.predictor
        expected = self._expected_ms(places)
        self._ahead.begin(expected)
        try:
            running = loop.run_in_executor(self._compute, run_safely, predictor, work)
            answers = await within(running, patience(expected, self._compute_timeout))
        finally:
            self._ahead.end()
        took = self._clock() - started
        self._policy.idle(self._now_ms())
        if answers.clean:
            self.costs.observe(batch.key, len(places), took * 1000)
            if self._recorder is not None:
                self._recorder.ran(batch.key, len(places), took * 1000)
        self._account(places, started, took)
        for place, answer in zip(places, answers.outputs, strict=True):
            place.deliver(answer)
        # Whoever waits goes first: a turn of the loop later, the answers are on their way.
        loop.call_soon(self._observe, places, started, took)

    async def _begun(self, batch: Batch) -> list[Place]:
        """Who runs now, with the newest there is, prepared; callers may go in the meantime."""
        known = [self._places[number] for number in batch.items]
        jobs = jobs_of(known)
        whole = [job.renewed for job in jobs if self._waits_whole(job)]
        expected = self._expected_ms(known)
        calls = [job.job.deadline for job in jobs if job.job.turn is None]
        spare_ms = min(calls, default=math.inf) * 1000 - self._now_ms() - (expected or 0.0)
        if self._policy.may_wait(self._now_ms()):
            ran_ms = self._ahead.ran_ms
            self._policy.delayed(waits(expected, ran_ms, spare_ms))
            await freshen(whole, expected, spare_ms, ran_ms)
        for job in jobs:
            job.renewed.end()
            if job.stale(self._clock()) and self._waits_whole(job):
                self._forget(job.items)
                job.expire()
        there = [place for number in batch.items if (place := self._places.pop(number, None))]
        for place in there:
            if place.unready:  # what it has came too late to be prepared in its turn
                await self._make_ready(place, self._compute)
        return [place for place in there if not place.unready]

    async def _serve_unready(self) -> None:
        """Prepare what comes, each in its turn."""
        while True:
            self._drop_expired()
            begun = self._policy.begin_preparing(self._now_ms())
            if begun is not None:
                await self._prepare_one(begun)
                continue
            self._unready.clear()
            await self._unready.wait()

    async def _prepare_one(self, begun: Begun) -> None:
        """Prepare an item; nothing of it is held while the next one is waited for."""
        if begun.dropped is not None:
            self._places[begun.dropped].prepared = None
        place = self._places[begun.item]
        # A stale frame is not computed: its place is ready for a newer one, or to be left out.
        stale = place.progress.stale(self._clock())
        if not stale:
            await self._make_ready(place, self._prepare)
        if self._policy.end_preparing() and place.unready and not stale:  # it failed
            self._forget([begun.item])
        self._wake.set()

    async def _make_ready(self, place: Place, thread: ThreadPoolExecutor) -> None:
        """Prepare an item on a thread; if it cannot be, that is its answer."""
        item, preparation, started = place.item, place.preparation, self._clock()
        running = asyncio.get_running_loop().run_in_executor(
            thread, prepare_safely, item, place.progress.predictor
        )
        cost = self.costs.cost(preparation)
        expected = None if cost is None else cost.of(1)
        found = await within(running, patience(expected, self._compute_timeout))
        if place.item is not item:  # its job has others by now
            return
        if isinstance(found, Exception):
            place.deliver(found)
            return
        place.prepared = found
        if preparation is not None:
            took_ms = (self._clock() - started) * 1000
            self.costs.observe(preparation.kind, preparation.size, took_ms)

    def _see_to_preparing(self) -> None:
        if self._policy.unready:
            self._unready.set()

    async def _woken(self, patience: float | None) -> None:
        """Return once something has come, or after so many seconds."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._wake.wait()

    def _account(self, places: list[Place], started: float, took: float) -> None:
        """Tell the jobs of a batch what it took."""
        for progress in jobs_of(places):
            progress.compute_seconds += took
            progress.batch_size = max(progress.batch_size, len(places))
        for place in places:
            waited = started - place.progress.arrived
            place.progress.queue_seconds = max(place.progress.queue_seconds, waited)

    def _observe(self, places: list[Place], started: float, took: float) -> None:
        """Tell the metrics of a batch what it took."""
        job, operation = places[0].progress.job, places[0].work[0].name
        self._metrics.compute_duration.labels(job.model, operation).observe(took)
        self._metrics.batch_size.labels(job.model, operation).observe(len(places))
        for place in places:
            self._metrics.queue_duration.labels(
                job.model, operation, place.progress.job.priority.name.lower()
            ).observe(started - place.progress.arrived)

    def _drop_expired(self) -> None:
        for number in self._policy.expire(self._now_ms()):
            self._places.pop(number).progress.expire()

    def _forget(self, items: list[int]) -> None:
        self._policy.cancel(items)
        self._see_to_preparing()
        for number in items:
            self._places.pop(number, None)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
