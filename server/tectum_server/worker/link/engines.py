"""A front's end of several engines: each job goes to the one that has least to do before it.

An engine orders what it has; between engines, this only chooses. A job that was in flight when
its engine died fails, and is not given to another: it may be what killed it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    Engine,
    ItemFailure,
    Job,
    JobResult,
    ModelEntry,
    Priority,
    Renewal,
)
from tectum_server.worker.link.merging import merged
from tectum_server.worker.outlook import Outlook

__all__ = ["Engines"]

_FULL = frozenset(
    {errors_pb2.ERROR_REASON_QUEUE_FULL, errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE}
)
"""Refusals of one engine that need not be another's."""
_NOT_FOUND = errors_pb2.ERROR_REASON_MODEL_NOT_FOUND
_FAULT = errors_pb2.ERROR_REASON_INTERNAL
_DOUBT = 1.0
"""Seconds that an engine comes last after a job of which nothing but faults came."""
_TRIES = 2
"""Engines that a job is offered to: where the one with least to do has no room, most have none."""


class _Member:
    """One engine, and what this front has asked of it."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self.engine = engine
        self._clock = clock
        self._doubt: float | None = None
        self._items = dict.fromkeys(Priority, 0)

    def version_of(self, name: str) -> str | None:
        """The version that serves; None: none."""
        entry = self.engine.models.get(name)
        return entry.version if entry is not None and entry.state == "ready" else None

    @property
    def in_doubt(self) -> bool:
        """Whether its last job failed for a fault of its own, and not long ago.

        One that fails at once would otherwise always have least to do, and be given all there is.
        """
        return self._doubt is not None and self._clock() < self._doubt

    def before(self, priority: Priority) -> tuple[int, int]:
        """Items that go before a new one of this class, and those that it overtakes."""
        ahead = sum(count for other, count in self._items.items() if other <= priority)
        return ahead, sum(self._items.values()) - ahead

    async def submit(self, job: Job, renewal: Renewal | None) -> JobResult:
        """Have it compute a job, and note whether it can."""
        self._items[job.priority] += len(job.items)
        try:
            result = await self.engine.submit(job, renewal)
        except Failure as failure:
            self._doubt = self._clock() + _DOUBT if failure.reason == _FAULT else self._doubt
            raise
        finally:
            self._items[job.priority] -= len(job.items)
        faulty = all(isinstance(o, ItemFailure) and o.reason == _FAULT for o in result.outputs)
        self._doubt = self._clock() + _DOUBT if faulty else None
        return result


class Engines:
    """jobs.Engine of one or more that serve the same.

    Args:
        engines: at least one.
        watched: whether they follow their repository by themselves, and take no version's name.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        watched: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = [_Member(engine, clock) for engine in engines]
        self._watched = watched
        self._turns = itertools.count()
        self._models: dict[str, ModelEntry] = {}
        self._listeners: list[Callable[[], None]] = []
        for engine in engines:
            engine.on_change(self._refresh)
        self._refresh()

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """The models by name: of all engines that are there."""
        return self._models

    @property
    def back_in(self) -> float:
        """As jobs.Engine.back_in: whichever is the first."""
        return min(member.engine.back_in for member in self._members)

    def outlooks(self) -> list[Outlook | None]:
        """As jobs.Engine.outlooks: of all engines that are there."""
        there = [member.engine for member in self._members if member.engine.models]
        return [one for engine in there for one in engine.outlooks()]

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `models` has changed."""
        self._listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def want(self, name: str) -> None:
        """As jobs.Engine.want; every engine is asked that lacks it."""
        for member in self._members:
            if member.version_of(name) is None:
                member.engine.want(name)

    def expect_control(self) -> None:
        """As jobs.Engine.expect_control; a call may go to any of them."""
        for member in self._members:
            member.engine.expect_control()

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        """As jobs.Engine.submit."""
        *others, last = self._in_order(job)[:_TRIES]
        for member in others:
            try:
                return await member.submit(job, renewal)
            except Failure as failure:
                if failure.reason not in _FULL:
                    raise
        return await last.submit(job, renewal)

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        """As jobs.Engine.load_model: in one engine, and once it serves there in all others.

        Raises:
            Failure: what the first raises, with nothing changed; ENGINE_UNAVAILABLE: not all
                engines are there; or what another one raises, which is named.
        """
        first, *others = self._all()
        entry = await first.load_model(name, version, make_default)
        same = version if self._watched else entry.version
        outcomes = await asyncio.gather(
            *(engine.load_model(name, same, make_default) for engine in others),
            return_exceptions=True,
        )
        _raise_first("loaded", outcomes)
        return entry

    async def unload_model(self, name: str) -> None:
        """As jobs.Engine.unload_model, in all engines.

        Raises:
            Failure: what the first raises, with nothing changed; ENGINE_UNAVAILABLE: not all
                engines are there; or what another one raises, which is named.
        """
        first, *others = self._all()
        unknown: Failure | None = None
        try:
            await first.unload_model(name)
        except Failure as failure:
            if failure.reason != _NOT_FOUND:
                raise
            unknown = failure  # it may be left in others, of a time before
        outcomes = await asyncio.gather(
            *(engine.unload_model(name) for engine in others), return_exceptions=True
        )
        lacking = [isinstance(o, Failure) and o.reason == _NOT_FOUND for o in outcomes]
        if unknown is not None and all(lacking):
            raise unknown
        _raise_first(
            "unloaded", [None if lacks else o for lacks, o in zip(lacking, outcomes, strict=True)]
        )

    def _in_order(self, job: Job) -> list[_Member]:
        """Who could compute a job, least to do first; those that cannot only if none can.

        Of several alike each has its turn: else all fronts would begin with the same.
        """
        count, turn = len(self._members), next(self._turns)
        able = [self._ability(member, job) for member in self._members]
        order = sorted(
            (number for number in range(count) if able[number] == max(able)),
            key=lambda n: (
                self._members[n].in_doubt,
                self._members[n].before(job.priority),
                (n - turn) % count,
            ),
        )
        return [self._members[number] for number in order]

    @staticmethod
    def _ability(member: _Member, job: Job) -> int:
        """How near an engine is to what a job needs: to have the model, in its version."""
        version = member.version_of(job.model)
        if version is None:
            return int(bool(member.engine.models))
        return 3 if job.version in ("", version) else 2

    def _all(self) -> list[Engine]:
        """Every engine; what an admin changes, changes in all or in none.

        Raises:
            Failure: ENGINE_UNAVAILABLE, one of them is away.
        """
        away = [member.engine for member in self._members if not member.engine.models]
        if away and len(self._members) > 1:
            raise Failure(
                errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE,
                f"{len(away)} of {len(self._members)} engines are starting or being restarted; "
                "models are loaded and unloaded where all are there",
                retry_after=max(engine.back_in for engine in away),
            )
        return [member.engine for member in self._members]

    def _refresh(self) -> None:
        self._models = merged([member.engine.models for member in self._members], self._models)
        for listener in list(self._listeners):
            listener()


def _raise_first(done: str, outcomes: Sequence[object]) -> None:
    """Raise why one of the other engines, by its number, has not done as the first has.

    Raises:
        Failure: the first such one's.
    """
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Failure):
            raise Failure(
                outcome.reason,
                f"{done} in the first of {len(outcomes) + 1} engines, but engine-{number} says: "
                f"{outcome.message}",
                outcome.field,
                outcome.retry_after,
            )
        if isinstance(outcome, BaseException):
            raise outcome
