"""An engine in this process: the models it keeps and the scheduler that serves them.

The engine process wraps one of these; tests and tiny deployments use it directly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from tectum.v1 import errors_pb2
from tectum_core.bundle import Repository
from tectum_server.worker.engine.models.keeping import Keeper
from tectum_server.worker.engine.models.loading import line
from tectum_server.worker.engine.replay.recording import Recorder
from tectum_server.worker.engine.scheduling.scheduler import Scheduler
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import RETRYABLE
from tectum_server.worker.jobs import Job, JobResult, ModelEntry, Renewal
from tectum_server.worker.metrics import EngineMetrics
from tectum_server.worker.outlook import Outlook

__all__ = ["LocalEngine"]

_OUTLOOK_SECONDS = 0.05
"""So old may be what is told of what waits."""


class LocalEngine:
    """Models, and jobs on them.

    Raises:
        ValueError: no such repository, no such device, or no file to record in.
    """

    def __init__(self, settings: EngineSettings, metrics: EngineMetrics) -> None:
        self._settings = settings
        repository = _opened(settings.repository)
        _check_device(settings.device)
        self._scheduler = Scheduler(
            settings.max_queued_items,
            settings.max_batch,
            metrics,
            max_block_ms=settings.max_block_ms,
            calls_block_ms=settings.calls_block_ms,
            kept_share=settings.kept_share,
            compute_timeout=settings.compute_timeout,
            recorder=_recorder(settings.record),
            on_failure=self._fail,
        )
        self._keeper = Keeper(settings, repository, self._scheduler, metrics, self._announce)
        self._outlook: Outlook | None = None
        self._started = False
        self._failed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """The models by name; none before all that were asked for at the start serve."""
        return self._keeper.entries if self._started and not self._failed.is_set() else {}

    @property
    def back_in(self) -> float:
        """As jobs.Engine.back_in; from here nobody can say."""
        return RETRYABLE[errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE]

    @property
    def wanted(self) -> tuple[str, ...]:
        """What an engine that replaces this one should serve, the default first.

        Each as `name@version`: what serves, has made room, or could not be loaded.
        """
        return self._keeper.wanted if self.models else ()

    def outlooks(self) -> tuple[Outlook | None]:
        """As jobs.Engine.outlooks; asked of all who wait a few times a second, however many ask."""
        told, busy = self._outlook, self._scheduler.busy
        if not busy or told is None or time.monotonic() - told.at > _OUTLOOK_SECONDS:
            self._outlook = self._scheduler.outlook()
        return (self._outlook,)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `models` has changed."""
        self._listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    async def start(self) -> None:
        """Load the models and begin to serve.

        Raises:
            Failure: a model that was named is missing or rejected; for an engine that replaces
                another, all are.
        """
        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        self._scheduler.start()
        await self._keeper.start()
        self._started = True
        self._announce()
        self._keeper.watch()

    async def failed(self) -> None:
        """Return once a fault has ended the service; only a new engine helps."""
        await self._failed.wait()

    async def close(self) -> None:
        """Finish what was admitted, then stop."""
        await self._scheduler.close()
        await self._keeper.close()

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        """As jobs.Engine.submit."""
        loaded = self._keeper.serving(job)
        with loaded.in_flight:
            return await self._scheduler.submit(job, loaded.predictor, renewal)

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        """As jobs.Engine.load_model."""
        return await self._keeper.load(name, version, make_default=make_default)

    async def unload_model(self, name: str) -> None:
        """As jobs.Engine.unload_model."""
        await self._keeper.unload(name)

    def want(self, name: str) -> None:
        """As jobs.Engine.want."""
        self._keeper.want(name)

    def expect_control(self) -> None:
        """As jobs.Engine.expect_control."""
        self._scheduler.expect_control()

    def _announce(self) -> None:
        if self._started:
            for listener in list(self._listeners):
                listener()

    def _fail(self) -> None:
        self._failed.set()
        self._announce()


def _opened(repository: str) -> Repository:
    try:
        return Repository(repository)
    except (ValueError, ImportError) as error:  # fsspec: what it does not know, or lacks
        raise ValueError(f"repository {repository!r}: {error}") from error


def _recorder(path: str) -> Recorder | None:
    try:
        return Recorder(Path(path)) if path else None
    except OSError as error:
        raise ValueError(f"record {path!r}: {error.strerror}") from error


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch has no error of its own for this
        raise ValueError(f"device {device!r}: {line(error)}") from error
