"""The models of an engine: brought, replaced, evicted and dropped, as asked or as found.

One at a time: whoever brings a model finds the others as they were. What is read on threads is
`loading`'s and `watching`'s business, what comes first `beginning`'s, who has to go `shelf`'s, and
what a watched repository asks for `following`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from tectum.v1 import errors_pb2
from tectum_core.bundle import BundleNotFound, Repository
from tectum_server.worker.engine.models.beginning import Beginning
from tectum_server.worker.engine.models.following import Asked, Change
from tectum_server.worker.engine.models.loading import Loaded, Loader, Located
from tectum_server.worker.engine.models.shelf import NoRoom, Shelf, Slot
from tectum_server.worker.engine.models.watching import Follower, Watch
from tectum_server.worker.engine.scheduling.scheduler import Scheduler
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Job, ModelEntry, Rejection
from tectum_server.worker.metrics import EngineMetrics

__all__ = ["Keeper"]

_log = logging.getLogger(__name__)
_PATIENCE, _LONGEST_PATIENCE, _LOOK_AGAIN = 2.0, 30.0, 0.05
"""So many times as long as loading took, a model that was brought back waits for who asked, at most
so many seconds times that; how often it is looked at."""


class Keeper:
    """Keeps the models.

    Args:
        settings: the engine's.
        repository: where bundles are.
        scheduler: learns what batches of a model take as it is warmed up, and forgets it again.
        metrics: where to count.
        changed: called whenever `entries` has changed.
    """

    def __init__(
        self,
        settings: EngineSettings,
        repository: Repository,
        scheduler: Scheduler,
        metrics: EngineMetrics,
        changed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._metrics = metrics
        self._changed = changed
        self._asked = Asked.of(settings.models if settings.asked is None else settings.asked)
        self._loader = Loader(repository, settings, scheduler)
        self._watch = Watch(repository, settings.watch)
        self._shelf = Shelf(settings.model_memory_bytes)
        self._follower = Follower(self._watch, self._asked, lambda: self.entries, self._do)
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def entries(self) -> Mapping[str, ModelEntry]:
        """Every model that serves, has made room, or could not be loaded, by name."""
        return self._shelf.entries

    @property
    def wanted(self) -> tuple[str, ...]:
        """Each of them as `name@version`, the default first; none while nothing serves."""
        return self._shelf.wanted if self._shelf.serves else ()

    async def start(self) -> None:
        """Load what is to serve.

        Raises:
            Failure: a model that was named is missing or rejected; for an engine that replaces
                another, all are.
        """
        beginning = Beginning(self._asked, self._shelf, self._follower, self._bring_alone)
        if self._settings.asked is None:
            await beginning.first()
        else:
            await beginning.again(self._settings.models)

    def watch(self) -> None:
        """Follow the repository from now on, if that was asked for."""
        if self._settings.watch:
            self._spawn(self._follower.follow())

    async def close(self) -> None:
        """Bring nothing any more; what is being read is waited for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._watch.close()
        self._loader.close()

    def serving(self, job: Job) -> Loaded:
        """What computes a job: never another version than it was prepared for.

        Raises:
            Failure: MODEL_NOT_FOUND, or SPACE_MISMATCH where another version serves.
        """
        slot = self._shelf.find(job.model)
        if slot is None or slot.loaded is None:
            raise self._unknown(job.model)
        version = slot.loaded.entry.version
        if job.version not in ("", version):
            extra = {"request_id": job.request_id, "model": job.model, "version": job.version}
            _log.info("refused: another version serves", extra=extra)
            raise Failure(
                errors_pb2.ERROR_REASON_SPACE_MISMATCH,
                f"version {version} of {job.model} serves, no longer {job.version}",
                "options.model",
            )
        self._shelf.touch(slot)
        return slot.loaded

    async def load(self, name: str, version: str, *, make_default: bool) -> ModelEntry:
        """As jobs.Engine.load_model."""
        if version and self._follows(name):
            raise _follows(name, "version", f"publish {version} there as the latest")
        async with self._loading:
            await self._bring(name, version, make_default=make_default)
        return self._shelf.entries[name]

    async def unload(self, name: str) -> None:
        """As jobs.Engine.unload_model."""
        async with self._loading:
            slot = self._shelf.find(name)
            if slot is None:
                raise self._unknown(name, "name")
            if self._follows(name):
                raise _follows(name, "name", "take it out of there")
            if name == self._shelf.default:
                raise Failure(
                    errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
                    f"{name} is the default model; make another one the default first",
                    "name",
                )
            await self._drop(slot)

    def want(self, name: str) -> None:
        """As jobs.Engine.want."""
        self._call_back(name)

    async def _bring_alone(self, name: str, version: str) -> None:
        """As `_bring`, while nothing else comes or goes."""
        async with self._loading:
            await self._bring(name, version)

    async def _bring(self, name: str, version: str, *, make_default: bool = False) -> None:
        """Load a model and let it serve in place of another version, which is drained.

        Raises:
            Failure: it is missing, or rejected, which is noted.
        """
        told = version
        try:
            told = version or await self._loader.latest(name)
            located = await self._loader.locate(name, told)
            fresh = await self._load_in_room(located)
            await self._make_room_for_graphs(fresh)
        except Failure as failure:
            if failure.reason == errors_pb2.ERROR_REASON_BUNDLE_REJECTED:
                self._reject(name, told, failure)
            raise
        for observation in fresh.seen:
            self._scheduler.costs.observe(*observation)
        old = self._shelf.put(fresh)
        if make_default or not self._shelf.default:
            self._shelf.default = name
        self._metrics.model_loads.labels(name, "loaded").inc()
        self._announce()
        if old is not None:
            await self._drain(old)

    async def _load_in_room(self, located: Located) -> Loaded:
        """Take a model into memory; who has made room for one that does not load comes back.

        Raises:
            Failure: BUNDLE_REJECTED.
        """
        gone = await self._make_room(located.name, located.memory_bytes)
        try:
            return await self._loader.load(located)
        except Exception:
            for name in gone:
                self._call_back(name, into_free_room=True)
            raise

    def _call_back(self, name: str, *, into_free_room: bool = False) -> None:
        """Have what has made room loaded again; whether only if nobody has to go for it."""
        slot = self._shelf.find(name)
        if slot is not None and slot.loaded is None and not slot.coming and not slot.failed:
            slot.coming = True
            self._announce()
            self._spawn(self._bring_back(slot, into_free_room))

    async def _bring_back(self, slot: Slot, into_free_room: bool) -> None:
        """Load what has made room: the repository's latest if that is what serves, or as it was.

        What fails for now, for a repository that is away, say, is tried again for who asks next.
        """
        async with self._loading:
            if self._shelf.find(slot.name) is not slot:
                return  # unloaded meanwhile
            takes = slot.entry.memory_bytes if slot.entry is not None else 0
            try:
                if into_free_room and not self._shelf.has_room(slot.name, takes):
                    return  # somebody else has it by now
                await self._spare_who_has_just_come(slot.name, takes)
                await self._bring_best(slot)
            finally:
                slot.coming = False
                self._announce()

    async def _bring_best(self, slot: Slot) -> None:
        """Load the best version that loads."""
        for version in await self._candidates(slot):
            if slot.loaded is not None:
                break
            rejection = slot.rejection
            was = slot.entry is not None and version == slot.entry.version
            try:
                await self._bring(slot.name, version)
                if was:  # in place of the latest, which was rejected
                    slot.rejection = rejection
            except Exception as error:  # also whatever a remote repository's library raises
                extra = {"model": slot.name, "version": version, "reason": str(error)}
                _log.error("a model that had made room does not load", extra=extra)
                if was:
                    slot.failed = await self._is_lost(error)
                    lost = Rejection(version, str(error), time.time())
                    slot.rejection = lost if slot.failed else rejection
        if slot.loaded is not None:
            patience = min(max(slot.loaded.entry.load_seconds, 0.1), _LONGEST_PATIENCE)
            slot.kept_until = time.monotonic() + _PATIENCE * patience

    async def _candidates(self, slot: Slot) -> list[str]:
        """Versions to bring back, the best first: never one that was rejected."""
        as_it_was = slot.entry.version if slot.entry is not None else ""
        if not self._follows(slot.name):
            return [as_it_was]
        try:
            latest = await self._loader.latest(slot.name)
        except Exception:  # also whatever a remote repository's library raises
            return [as_it_was]
        rejected = slot.rejection.version if slot.rejection is not None else ""
        return [as_it_was] if latest in (rejected, as_it_was) else [latest, as_it_was]

    async def _is_lost(self, error: Exception) -> bool:
        """Whether a bundle that does not load never will."""
        cause = error.__cause__
        if isinstance(cause, BundleNotFound):
            return await self._loader.is_there()
        return isinstance(cause, ValueError)  # as BundleError and GoldenMismatch are

    async def _spare_who_has_just_come(self, name: str, takes: int) -> None:
        """Wait while a model would have to go that was brought back and is not used yet.

        Else two that take turns would evict each other before whoever asked can come again.
        """
        # Until a moment comes, or what no event tells of.
        while self._shelf.would_disappoint(name, takes, time.monotonic()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN)

    async def _make_room(self, name: str, needed: int) -> list[str]:
        """Evict what has to go, and say who did.

        Raises:
            Failure: BUNDLE_REJECTED; it does not fit in whoever goes.
        """
        try:
            victims = self._shelf.to_make_room(name, needed)
        except NoRoom as error:
            raise Failure(errors_pb2.ERROR_REASON_BUNDLE_REJECTED, str(error)) from error
        for victim in victims:
            _log.info("a model makes room", extra={"model": victim, "for": name})
            gone = self._shelf.evict(victim)
            self._metrics.model_loads.labels(victim, "evicted").inc()
            self._announce()
            if gone is not None:
                await self._drain(gone)
        return victims

    async def _make_room_for_graphs(self, fresh: Loaded) -> None:
        """Evict what has to go for what was recorded, or do without: the weights have room."""
        try:
            if fresh.predictor.lane is not None:
                await self._make_room(fresh.entry.name, fresh.entry.memory_bytes)
        except Failure:
            fresh.do_without_graphs()

    async def _drop(self, slot: Slot) -> None:
        self._shelf.drop(slot.name)
        self._announce()
        if slot.loaded is not None:
            await self._drain(slot.loaded)

    def _reject(self, name: str, version: str, failure: Failure) -> None:
        """Note that a version should serve and does not."""
        extra = {"model": name, "version": version, "reason": failure.message}
        _log.error("a bundle was rejected", extra=extra)
        self._shelf.reject(name, Rejection(version, failure.message, time.time()))
        self._metrics.model_loads.labels(name, "rejected").inc()
        self._announce()

    async def _do(self, change: Change) -> None:
        async with self._loading:
            slot = self._shelf.find(change.name)
            if change.what == "load":
                await self._bring(change.name, "")
            elif slot is not None and change.what == "unload":
                if change.name != self._shelf.default:  # an admin may have made it so meanwhile
                    await self._drop(slot)
            elif slot is not None:
                slot.rejection = None
                self._announce()

    def _follows(self, name: str) -> bool:
        """Whether what serves of a name is the repository's to say, not an admin's."""
        return bool(self._settings.watch) and self._asked.follows(name)

    def _announce(self) -> None:
        self._metrics.tell_models(self._shelf.entries)
        self._changed()

    async def _drain(self, gone: Loaded) -> None:
        await gone.in_flight.idle()
        await asyncio.to_thread(gone.close)
        name, version = gone.entry.name, gone.entry.version
        slot = self._shelf.find(name)
        if slot is None or slot.loaded is None or slot.loaded.entry.version != version:
            self._scheduler.forget_model(f"{name}@{version}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("a task that sees to models has failed", exc_info=fault)

    def _unknown(self, name: str, field: str = "options.model") -> Failure:
        serving = (name for name, entry in self._shelf.entries.items() if entry.state == "ready")
        known = ", ".join(sorted(serving)) or "none"
        return Failure(
            errors_pb2.ERROR_REASON_MODEL_NOT_FOUND,
            f"no model named {name!r} is loaded; there are: {known}",
            field,
        )


def _follows(name: str, field: str, instead: str) -> Failure:
    """What an admin is told who would set a model apart from the repository that is watched."""
    return Failure(
        errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
        f"{name} follows the repository, which this worker watches; {instead}",
        field,
    )
