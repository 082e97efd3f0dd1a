"""The shell around the batching policy: a loop, three threads, and the clock.

One thread prepares what another one computes next, or launches on a device that computes by itself;
the third fetches the answers of that, and the next batch is launched meanwhile. What waits, who
goes next and who is refused, `batching` decides; what a batch does, `operations` does; `queue` has
the jobs that wait. Here they run, results find their way back, and time is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.running import (
    Answers,
    launch_safely,
    prepare_safely,
    run_safely,
)
from tectum_server.worker.engine.policy.batching import Batch, Batching
from tectum_server.worker.engine.policy.cost import CostModel
from tectum_server.worker.engine.policy.preparing import Begun
from tectum_server.worker.engine.replay.recording import Recorder
from tectum_server.worker.engine.scheduling.accounting import account, observe
from tectum_server.worker.engine.scheduling.foretelling import outlook
from tectum_server.worker.engine.scheduling.progress import Place, Progress, jobs_of
from tectum_server.worker.engine.scheduling.queue import Queue
from tectum_server.worker.engine.scheduling.renewing import Ahead, Renewed, freshen
from tectum_server.worker.engine.scheduling.stuck import patience, within
from tectum_server.worker.engine.scheduling.telling import out_of_service
from tectum_server.worker.engine.scheduling.threads import Threads, on
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import Job, JobResult, Renewal
from tectum_server.worker.metrics import EngineMetrics
from tectum_server.worker.outlook import Outlook

__all__ = ["Scheduler"]

_log = logging.getLogger(__name__)
_AT_ONCE = 2
"""Batches that are launched and not answered: one is sent while another one is computed."""


class Scheduler:
    """Jobs in, results out, one batch at a time.

    Args:
        max_queued: items that may wait at once.
        max_batch: largest batch.
        metrics: where to observe.
        clock: seconds, monotonic; jobs' deadlines are on it.
        max_block_ms: as in `batching`.
        calls_block_ms: as there.
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
        calls_block_ms: int | None = None,
        kept_share: float = 0.0,
        compute_timeout: float = 30.0,
        recorder: Recorder | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.costs = CostModel()
        self._max_batch = max_batch
        self._policy = Batching(
            max_queued, max_batch, self.costs.cost, max_block_ms, kept_share, calls_block_ms
        )
        self._metrics = metrics
        self._recorder = recorder
        self._clock = clock
        self._on_failure = on_failure
        self._compute_timeout = compute_timeout
        self._failed = False
        self._queue = Queue(self._policy, self.costs, clock, recorder)
        self._threads = Threads()
        self._group = asyncio.TaskGroup()
        self._launched = 0
        self._ended = -math.inf
        self._running: asyncio.Task[None] | None = None
        self._in_flight = InFlight()
        self._under_way: set[Progress] = set()
        self._ahead = Ahead(self._queue.coming)

    def start(self) -> None:
        """Begin to serve the queue on the running event loop."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Finish what was admitted, then stop."""
        await self._in_flight.idle()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._threads.close(stuck=self._failed)
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
                lambda content: self._queue.renew(progress, content),
                lambda: self._queue.needs(progress),
            ),
        )
        self._queue.admit(progress)
        self._metrics.set_depth(self._policy.depth())
        self._ahead.look()
        self._under_way.add(progress)
        with self._in_flight:
            try:
                await progress.done
            finally:
                self._under_way.discard(progress)
                self._queue.end(progress)
                await progress.renewed.close()
        return progress.result

    def fail(self) -> None:
        """End the service, for good: who waits is refused, and who comes from now on."""
        if self._failed:
            return
        self._failed = True
        for progress in self._under_way:
            if not progress.done.done():
                progress.done.set_exception(out_of_service())
        self._on_failure()

    def between_batches(self, work: Callable[[], object]) -> None:
        """Do something where batches are computed; another thread waits for it."""
        self._threads.between_batches(work)

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return self._policy.busy

    def outlook(self) -> Outlook | None:
        """What waits and runs; None: nothing."""
        return outlook(self._policy, self.costs, self._max_batch, self._queue.now_ms())

    def expect_control(self) -> None:
        """As jobs.Engine.expect_control."""
        self._policy.expect_control(self._queue.now_ms())

    def forget_model(self, model: str) -> None:
        """Drop what is known of the cost of a model's version, `name@version`."""
        self.costs.forget({k for k in self.costs.known if isinstance(k, tuple) and k[0] == model})

    async def _run(self) -> None:
        """Serve; should that ever end by itself, let nobody wait for what will not come."""
        try:
            async with self._group:
                self._group.create_task(self._serve())
                self._group.create_task(self._serve_unready())
        except Exception:
            _log.exception("the scheduler failed; this engine computes no more")
            self.fail()

    async def _serve(self) -> None:
        while True:
            self._queue.drop_expired()
            if self._launched and not self._takes_more():
                await self._woken(None)
                continue
            pause = 0 if self._launched else self._policy.pause(self._queue.now_ms())
            batch = None if pause else self._policy.next_batch(self._queue.now_ms())
            self._metrics.set_depth(self._policy.depth())
            self._queue.see_to_preparing()
            if batch is None:
                await self._woken(pause / 1000 if pause else None)
                continue
            await self._run_one(batch)

    def _takes_more(self) -> bool:
        """Whether another batch goes behind those that were launched."""
        return self._launched < _AT_ONCE and self._policy.takes_more(self._queue.now_ms())

    async def _run_one(self, batch: Batch) -> None:
        """Compute a batch, or launch it; nothing of it is held while the next one is waited for."""
        places = await self._begun(batch)
        if not places:
            self._policy.idle(self._queue.now_ms(), last=True)
            return
        begun = self._clock()
        work, predictor = [place.work for place in places], places[0].progress.predictor
        if predictor.lane is not None:
            launching = on(self._threads.compute, partial(launch_safely, predictor, work))
            allowed = patience(self._queue.expected_ms(places), self._compute_timeout)
            if fetch := await within(launching, allowed):
                self._launched += 1
                landing = self._finish(batch, places, on(self._threads.fetch, fetch), begun)
                self._group.create_task(self._landed(landing))
                return
        while self._launched:  # nothing else computes beside what was launched
            await self._woken(None)
        running = on(self._threads.compute, partial(run_safely, predictor, work))
        await self._finish(batch, places, running, begun)

    async def _landed(self, landing: Coroutine[None, None, None]) -> None:
        """Wait until a batch that was launched has been answered."""
        try:
            await landing
        finally:
            self._launched -= 1
            self._queue.changed.set()

    async def _finish(
        self, batch: Batch, places: list[Place], running: asyncio.Future[Answers], begun: float
    ) -> None:
        """Wait for a batch, and let its jobs have what came of it."""
        expected = self._queue.expected_ms(places)
        self._ahead.begin(expected)
        try:
            answers = await within(running, patience(expected, self._compute_timeout))
        finally:
            self._ahead.end()
        # What it waited behind another one on the device is no part of what it took.
        started, self._ended = max(begun, self._ended), self._clock()
        took = self._ended - started
        self._policy.idle(self._queue.now_ms())
        if answers.clean:
            self.costs.observe(batch.key, len(places), took * 1000)
            if self._recorder is not None:
                self._recorder.ran(batch.key, len(places), took * 1000)
        account(places, started, took)
        for place, answer in zip(places, answers.outputs, strict=True):
            place.deliver(answer)
        # Whoever waits goes first: a turn of the loop later, the answers are on their way.
        asyncio.get_running_loop().call_soon(observe, self._metrics, places, started, took)

    async def _begun(self, batch: Batch) -> list[Place]:
        """Who runs now, with the newest there is, prepared; callers may go in the meantime."""
        known = [self._queue.places[number] for number in batch.items]
        jobs = jobs_of(known)
        whole = [job.renewed for job in jobs if self._queue.holds(job)]
        expected = self._queue.expected_ms(known)
        calls = [job.job.deadline for job in jobs if job.job.turn is None]
        spare_ms = min(calls, default=math.inf) * 1000 - self._queue.now_ms() - (expected or 0.0)
        if self._policy.may_wait(self._queue.now_ms()):
            await freshen(whole, expected, spare_ms, self._ahead.ran_ms, self._policy.delayed)
        for job in jobs:
            job.renewed.end()
            if job.stale(self._clock()) and self._queue.holds(job):
                self._queue.forget(job.items)
                job.expire()
        there = self._queue.taken(batch.items)
        for place in there:
            if place.unready:  # what it has came too late to be prepared in its turn
                await self._make_ready(place, self._threads.compute)
        return [place for place in there if not place.unready]

    async def _serve_unready(self) -> None:
        """Prepare what comes, each in its turn."""
        while True:
            self._queue.drop_expired()
            begun = self._policy.begin_preparing(self._queue.now_ms())
            if begun is not None:
                await self._prepare_one(begun)
                continue
            self._queue.unready.clear()
            await self._queue.unready.wait()

    async def _prepare_one(self, begun: Begun) -> None:
        """Prepare an item; nothing of it is held while the next one is waited for."""
        if begun.dropped is not None:
            self._queue.places[begun.dropped].prepared = None
        place = self._queue.places[begun.item]
        # A stale frame is not computed: its place is ready for a newer one, or to be left out.
        stale = place.progress.stale(self._clock())
        if not stale:
            await self._make_ready(place, self._threads.prepare)
        if self._policy.end_preparing() and place.unready and not stale:  # it failed
            self._queue.forget([begun.item])
        self._queue.changed.set()

    async def _make_ready(self, place: Place, thread: ThreadPoolExecutor) -> None:
        """Prepare an item on a thread; if it cannot be, that is its answer."""
        item, preparation, started = place.item, place.preparation, self._clock()
        running = on(thread, partial(prepare_safely, item, place.progress.predictor))
        expected = self._policy.expected_ms(preparation, 1)
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
            if self._recorder is not None:
                self._recorder.ran(preparation.kind, preparation.size, took_ms)

    async def _woken(self, patience: float | None) -> None:
        """Return once something has come, or after so many seconds."""
        self._queue.changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._queue.changed.wait()
