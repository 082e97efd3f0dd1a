"""Jobs that wait, and their items' places in the policy's line."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tectum_server.worker.engine.policy.asking import Needs
from tectum_server.worker.engine.policy.batching import Batching, Refused
from tectum_server.worker.engine.policy.cost import CostModel
from tectum_server.worker.engine.policy.line import Waiting
from tectum_server.worker.engine.replay.recording import Framed, Recorder
from tectum_server.worker.engine.scheduling.progress import (
    Place,
    Progress,
    jobs_of,
    keys_of,
    later,
    needs_of,
    preparations_of,
    waiting_of,
)
from tectum_server.worker.engine.scheduling.renewing import Renewed
from tectum_server.worker.engine.scheduling.telling import named, refusal
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Content, Job

__all__ = ["Queue"]

_log = logging.getLogger(__name__)


class Queue:
    """What the policy has numbers for.

    Args:
        policy: who is let in and who goes next.
        costs: what it reckons with.
        clock: seconds, monotonic; jobs' deadlines are on it.
        recorder: where to write what comes; None: nowhere.
    """

    def __init__(
        self,
        policy: Batching,
        costs: CostModel,
        clock: Callable[[], float],
        recorder: Recorder | None,
    ) -> None:
        self._policy = policy
        self._costs = costs
        self._clock = clock
        self._recorder = recorder
        self._numbers = itertools.count()
        self.places: dict[int, Place] = {}
        """By the number that the policy knows an item by: what neither runs nor has run."""
        self.changed = asyncio.Event()
        """Set where something came, or became another."""
        self.unready = asyncio.Event()
        """Set where something is to be prepared."""

    def now_ms(self) -> int:
        """The policy's time."""
        return int(self._clock() * 1000)

    def admit(self, progress: Progress) -> None:
        """Let a job wait.

        Raises:
            Failure: it is refused, or no model could compute it.
        """
        job = progress.job
        waiting = waiting_of(progress, self._numbers)
        arrived, now_ms = None if job.arrived is None else int(job.arrived * 1000), self.now_ms()
        self._record(job, waiting, now_ms)
        verdict = self._policy.admit(waiting, now_ms, arrived, later(job, progress.predictor))
        if isinstance(verdict, Refused):
            _log.info("refused", extra={**named(job), "reason": verdict.reason.value})
            raise refusal(verdict)
        progress.items = [item.item for item in waiting]
        progress.keys = [item.key for item in waiting]
        for index, item in enumerate(waiting):
            self.places[item.item] = Place(progress, index, item.preparation)
        self._tell()

    def renew(self, progress: Progress, content: Content) -> bool:
        """Put newer items in a job's place, if all of it still waits and they are of its kinds."""
        if not self.holds(progress):
            return False
        before = progress.job
        later_by = content.deadline - before.deadline
        arrived = None if before.arrived is None else before.arrived + later_by
        job = replace(before, items=content.items, deadline=content.deadline, arrived=arrived)
        try:
            if keys_of(job, progress.predictor) != progress.keys:
                return False
        except Failure:
            return False
        progress.job = job
        needs = dict(zip(progress.items, preparations_of(job, progress.predictor), strict=True))
        for number, preparation in needs.items():
            self.places[number].change(preparation)
        self._policy.renew(needs, int(job.deadline * 1000))
        if self._recorder is not None:
            self._recorder.newer(self.now_ms(), progress.items[0], _captured_ms(job, self.now_ms()))
        self._tell()
        return True

    def holds(self, progress: Progress) -> bool:
        """Whether nothing of a job runs or has run, so that it may still become another's."""
        return all(number in self.places for number in progress.items)

    def needs(self, progress: Progress) -> Needs:
        """What is to be prepared of a job."""
        return needs_of(progress, self.places, self._costs.cost, self._clock())

    def coming(self) -> tuple[list[Renewed], float | None]:
        """What runs next, as things are, if it may still change; and what that takes."""
        coming = [self.places[number] for number in self._policy.upcoming(self.now_ms())]
        jobs = [job.renewed for job in jobs_of(coming) if self.holds(job)]
        return jobs, self.expected_ms(coming) if coming else None

    def expected_ms(self, places: Sequence[Place]) -> float | None:
        """What a batch of these takes; None: nobody knows yet."""
        return self._policy.expected_ms(places[0].key, len(places))

    def taken(self, numbers: Iterable[int]) -> list[Place]:
        """Those of them that are there, and wait no more."""
        return [place for one in numbers if (place := self.places.pop(one, None)) is not None]

    def end(self, progress: Progress) -> None:
        """A job was answered, or its caller has left."""
        if self._recorder is not None and progress.done.cancelled():
            self._recorder.left(self.now_ms(), progress.items[0])
        self.forget(progress.items)

    def forget(self, numbers: Sequence[int]) -> None:
        """They wait no more, and nobody asks for them."""
        self._policy.cancel(numbers)
        self.see_to_preparing()
        for number in numbers:
            self.places.pop(number, None)

    def drop_expired(self) -> None:
        """Tell those whose time is over."""
        for number in self._policy.expire(self.now_ms()):
            self.places.pop(number).progress.expire()

    def see_to_preparing(self) -> None:
        """Have prepared what the policy wants prepared by now."""
        if self._policy.unready:
            self.unready.set()

    def _record(self, job: Job, waiting: Sequence[Waiting], now_ms: int) -> None:
        """A job comes, whatever becomes of it."""
        if self._recorder is None:
            return
        frame = None
        if job.turn is not None:
            stream = self._recorder.stream(job.request_id)
            frame = Framed(stream, int(job.turn * 1000), _captured_ms(job, now_ms))
        self._recorder.came(
            now_ms,
            [one.key for one in waiting],
            job.priority,
            waiting[0].deadline_ms - now_ms,
            number=waiting[0].item,
            preparations=[one.preparation for one in waiting],
            frame=frame,
        )

    def _tell(self) -> None:
        self.changed.set()
        self.see_to_preparing()


def _captured_ms(job: Job, now_ms: int) -> int:
    """When the frame was that a place is for now."""
    return now_ms if job.arrived is None else round(job.arrived * 1000)
