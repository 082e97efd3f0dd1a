"""An engine in this process: loaded models and the scheduler that serves them.

The engine process wraps one of these; tests and tiny deployments use it directly.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from tectum.v1 import call_pb2, errors_pb2
from tectum_core.bundle import BundleError, BundleNotFound, Repository, read_bundle
from tectum_core.golden import GoldenMismatch, check_golden
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.describe import describe
from tectum_server.worker.engine.recording import Recorder
from tectum_server.worker.engine.scheduler import Scheduler
from tectum_server.worker.engine.warmup import warm_up
from tectum_server.worker.failure import Failure
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import Job, JobResult, ModelEntry
from tectum_server.worker.metrics import EngineMetrics

__all__ = ["EngineSettings", "LocalEngine"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is told at its start."""

    repository: str
    """Where bundles are; a folder or an fsspec URL."""
    models: tuple[str, ...]
    """Names to load, optionally `name@version`; the first is the default."""
    device: str = "cpu"
    """A torch device."""
    threads: int = 0
    """Torch's threads for one operator; 0: torch's own choice."""
    max_batch: int = 32
    """Largest batch."""
    max_queued_items: int = 256
    """Items that may wait at once."""
    max_block_ms: int | None = None
    """As in `batching`."""
    kept_share: float = 0.05
    """As in `batching`."""
    record: str = ""
    """File of what comes and what it takes, as `recording` writes it; empty: none."""
    asked: tuple[str, ...] | None = None
    """For an engine that replaces one that served `models`: what the worker was asked for, which
    stands in for what is there no more; what does not load at all is left out. None: all or none
    of `models`."""


@dataclass(slots=True, eq=False)
class _Loaded:
    """A model that serves."""

    predictor: Predictor
    entry: ModelEntry
    in_flight: InFlight = field(default_factory=InFlight)


class LocalEngine:
    """Models, and jobs on them.

    Raises:
        ValueError: no such repository, no such device, or no file to record in.
    """

    def __init__(self, settings: EngineSettings, metrics: EngineMetrics) -> None:
        self._settings = settings
        self._repository = _opened(settings.repository)
        _check_device(settings.device)
        self._scheduler = Scheduler(
            settings.max_queued_items,
            settings.max_batch,
            metrics,
            max_block_ms=settings.max_block_ms,
            kept_share=settings.kept_share,
            recorder=_recorder(settings.record),
            on_failure=self._fail,
        )
        self._loaded: dict[str, _Loaded] = {}
        self._default = ""
        self._missing: dict[str, str] = {}
        self._started = False
        self._failed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._loading = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """The models that serve, by name; none before all that were asked for at the start do."""
        if not self._started or self._failed.is_set():
            return {}
        return {name: loaded.entry for name, loaded in self._loaded.items()}

    @property
    def wanted(self) -> tuple[str, ...]:
        """What an engine that replaces this one should serve, the default first.

        Each as `name@version`: what serves, and what could not be loaded at the start.
        """
        serving = {e.name: f"{e.name}@{e.version}" for e in self.models.values()}
        both = {**serving, **self._missing} if serving else {}
        return tuple(both[name] for name in sorted(both, key=lambda name: name != self._default))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `models` has changed."""
        self._listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    async def start(self) -> None:
        """Load the models and begin to serve.

        Raises:
            Failure: a model is missing or rejected; for an engine that replaces another, all are.
        """
        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        self._scheduler.start()
        if self._settings.asked is None:
            # All or none: else a worker would call itself ready, and refuse its second model for
            # good.
            for wanted in self._settings.models:
                await self._begin_with(wanted)
        else:
            await self._begin_again(self._settings.models, self._settings.asked)
        self._started = True
        self._announce()

    async def _begin_with(self, wanted: str) -> None:
        """Load a model; the first of `models` is the default.

        Raises:
            Failure: it is missing or rejected.
        """
        name, _, version = wanted.partition("@")
        first, _, _ = self._settings.models[0].partition("@")
        try:
            await self.load_model(name, version, make_default=name == first)
        except Failure as failure:  # of no request, so of no field of one
            raise Failure(failure.reason, failure.message) from failure

    async def _begin_again(self, models: tuple[str, ...], asked: tuple[str, ...]) -> None:
        """Load what served last, as far as it loads: one model's loss is not all the others'.

        Raises:
            Failure: none loads.
        """
        instead = {wanted.partition("@")[0]: wanted for wanted in asked}
        # No other model takes the place of a default that is missing: it answers in other spaces.
        self._default = models[0].partition("@")[0]
        why: Exception | None = None
        for wanted in models:
            name = wanted.partition("@")[0]
            for candidate in dict.fromkeys([wanted, instead.get(name, wanted)]):
                try:
                    await self._begin_with(candidate)
                    break
                except Exception as error:  # also whatever a remote repository's library raises
                    why = error
                    extra = {"model": candidate, "reason": str(error)}
                    _log.error("a model that served does not load", extra=extra)
            else:
                self._missing[name] = wanted
        if not self._loaded and why is not None:
            raise why

    async def failed(self) -> None:
        """Return once a fault has ended the service; only a new engine helps."""
        await self._failed.wait()

    async def close(self) -> None:
        """Finish what was admitted, then stop."""
        await self._scheduler.close()
        self._loader.shutdown()

    async def submit(self, job: Job) -> JobResult:
        """As jobs.Engine.submit."""
        loaded = self._serving(job)
        with loaded.in_flight:
            return await self._scheduler.submit(job, loaded.predictor)

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        """As jobs.Engine.load_model."""
        async with self._loading:
            loop = asyncio.get_running_loop()
            fresh, seen = await loop.run_in_executor(self._loader, self._load, name, version)
            for observation in seen:
                self._scheduler.costs.observe(*observation)
            old = self._loaded.get(name)
            self._loaded[name] = fresh
            self._missing.pop(name, None)
            if make_default or not self._default:
                self._default = name
            self._announce()
            if old is not None:
                await self._drain(old)
            return self._loaded[name].entry

    async def unload_model(self, name: str) -> None:
        """As jobs.Engine.unload_model."""
        async with self._loading:
            loaded = self._loaded.get(name)
            if loaded is None:
                if self._missing.pop(name, None) is None:
                    raise self._unknown(name, "name")
                self._announce()
                return
            if name == self._default:
                raise Failure(
                    errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
                    f"{name} is the default model; make another one the default first",
                    "name",
                )
            del self._loaded[name]
            self._announce()
            await self._drain(loaded)

    def _serving(self, job: Job) -> _Loaded:
        """What computes the job: never another version than it was prepared for."""
        loaded = self._loaded.get(job.model)
        if loaded is None:
            raise self._unknown(job.model)
        if job.version not in ("", loaded.entry.version):
            extra = {"request_id": job.request_id, "model": job.model, "version": job.version}
            _log.info("refused: another version serves", extra=extra)
            raise Failure(
                errors_pb2.ERROR_REASON_SPACE_MISMATCH,
                f"version {loaded.entry.version} of {job.model} serves, no longer {job.version}",
                "options.model",
            )
        return loaded

    def _load(self, name: str, version: str) -> tuple[_Loaded, list[tuple[Hashable, int, float]]]:
        """A model ready to serve, and what its batches took while it was warmed up."""
        started = time.monotonic()
        try:
            folder, found = self._repository.locate(name, version or None)
            predictor = Predictor(read_bundle(Path(folder), name, found), self._settings.device)
            report = check_golden(predictor)
            seen = warm_up(predictor, self._settings.max_batch)
        except BundleNotFound as error:
            raise Failure(errors_pb2.ERROR_REASON_MODEL_NOT_FOUND, str(error), "name") from error
        except (BundleError, GoldenMismatch) as error:
            raise Failure(errors_pb2.ERROR_REASON_BUNDLE_REJECTED, str(error)) from error
        except RuntimeError as error:  # torch's: no memory on the device, say
            _log.warning("a model does not run", extra={"model": name}, exc_info=error)
            raise Failure(
                errors_pb2.ERROR_REASON_BUNDLE_REJECTED,
                f"{name} does not run on {self._settings.device}: {_line(error)}",
            ) from error
        numerics = call_pb2.Numerics(
            precision="float32", engine=f"torch-{torch.__version__}/{predictor.device.type}/eager"
        )
        bundle = predictor.bundle
        joint = bundle.model.joint
        entry = ModelEntry(
            name=name,
            version=bundle.version,
            ready=True,
            default=False,
            description=describe(bundle, report, numerics).SerializeToString(),
            card=bundle.card,
            spaces={space.name: space.space_id for space in bundle.spaces},
            logit_scale=1.0 if joint is None else float(joint.log_scale.exp()),
            logit_bias=0.0 if joint is None or joint.bias is None else float(joint.bias),
        )
        took = time.monotonic() - started
        _log.info("model loaded", extra={"model": name, "version": found, "seconds": took})
        return _Loaded(predictor, entry), seen

    def _announce(self) -> None:
        for name, loaded in self._loaded.items():
            is_default = name == self._default
            if loaded.entry.default != is_default:
                loaded.entry = msgspec.structs.replace(loaded.entry, default=is_default)
        if self._started:
            for listener in list(self._listeners):
                listener()

    async def _drain(self, gone: _Loaded) -> None:
        await gone.in_flight.idle()
        name, version = gone.entry.name, gone.entry.version
        serving = self._loaded.get(name)
        if serving is None or serving.entry.version != version:
            self._scheduler.forget_model(f"{name}@{version}")

    def _fail(self) -> None:
        self._failed.set()
        self._announce()

    def _unknown(self, name: str, field: str = "options.model") -> Failure:
        known = ", ".join(sorted(self._loaded)) or "none"
        return Failure(
            errors_pb2.ERROR_REASON_MODEL_NOT_FOUND,
            f"no model named {name!r} is loaded; there are: {known}",
            field,
        )


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
        raise ValueError(f"device {device!r}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """An error's first line; torch's go on for pages."""
    return str(error).partition("\n")[0]
