"""A bundle made ready to serve: found, read, held against its golden outputs, warmed up.

Each step is long, so a thread does them, one bundle at a time. What serves meanwhile, and what has
to make room, is `keeping`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import msgspec
import torch

from tectum.v1 import call_pb2, errors_pb2, model_pb2
from tectum_core.bundle import (
    Bundle,
    BundleError,
    BundleNotFound,
    Examined,
    Repository,
    examine_bundle,
    memory_of,
    read_examined,
)
from tectum_core.golden import GoldenMismatch, GoldenReport, check_golden
from tectum_core.launching.faults import device_lost
from tectum_core.numerics import Numerics, release
from tectum_core.panics import NO_FAULTS
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.models.choosing import choose, keep_compiled
from tectum_server.worker.engine.models.describe import describe
from tectum_server.worker.engine.models.graphs import with_graphs, without_graphs
from tectum_server.worker.engine.models.warmup import (
    keeps_by_thread,
    prepare_cameras,
    warm_up,
    warm_up_there,
)
from tectum_server.worker.engine.scheduling.scheduler import Scheduler
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import Failure
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import ModelEntry

__all__ = ["Loaded", "Loader", "Located", "line"]

_log = logging.getLogger(__name__)
_GRAPHS = "+graphs"
"""Behind the name of an engine that launches recorded graphs."""
_P = ParamSpec("_P")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Located:
    """A bundle that is there and sound, as far as can be told without its weights in memory."""

    name: str
    version: str
    examined: Examined
    memory_bytes: int
    """What its weights will take."""
    seconds: float
    """What it took to examine it."""


@dataclass(slots=True, eq=False)
class Loaded:
    """A model in memory, ready to serve."""

    predictor: Predictor
    entry: ModelEntry
    seen: list[tuple[Hashable, int, float]]
    """What its batches took while it was warmed up, as `CostModel.observe` takes them."""
    in_flight: InFlight = field(default_factory=InFlight)
    """Jobs on it."""

    def close(self) -> None:
        """Let go of what was recorded and compiled; what was launched is waited for."""
        without_graphs(self.predictor)
        release(self.predictor.model)

    def do_without_graphs(self) -> None:
        """Free what was recorded, and launch kernel by kernel from now on."""
        without_graphs(self.predictor)
        description = model_pb2.Model.FromString(self.entry.description)
        description.numerics.engine = description.numerics.engine.removesuffix(_GRAPHS)
        self.entry = msgspec.structs.replace(
            self.entry,
            description=description.SerializeToString(),
            memory_bytes=_memory(self.predictor),
        )


class Loader:
    """The thread that loads.

    Args:
        repository: where bundles are.
        settings: where and how they shall run, and the largest batch to warm them up for.
        scheduler: whose thread will compute, and whose service ends if the device is lost.
    """

    def __init__(
        self,
        repository: Repository,
        settings: EngineSettings,
        scheduler: Scheduler,
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._scheduler = scheduler
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")

    async def latest(self, name: str) -> str:
        """The version that the repository calls the latest.

        Raises:
            Failure: MODEL_NOT_FOUND, or BUNDLE_REJECTED if it names none.
        """
        return await self._do(_telling(self._repository.latest), name)

    async def locate(self, name: str, version: str) -> Located:
        """Find a bundle, fetch it if it is elsewhere, and examine its files.

        Raises:
            Failure: MODEL_NOT_FOUND or BUNDLE_REJECTED.
        """
        return await self._do(_telling(self._locate), name, version)

    async def is_there(self) -> bool:
        """Whether the repository is, so that what it lacks is missing and not only away."""
        return await self._do(self._repository.exists)

    async def load(self, located: Located) -> Loaded:
        """Take its weights into memory, check what comes of them, and warm up.

        Raises:
            Failure: BUNDLE_REJECTED.
            torch.AcceleratorError: the device is lost, and with it the service has ended.
        """
        try:
            return await self._do(_telling(self._load), located)
        except torch.AcceleratorError:
            _log.exception("the device is lost", extra={"model": located.name})
            self._scheduler.fail()
            raise
        except ValueError as error:  # a golden text that its tokenizer cannot read, a panic
            words = f"{located.name}: {line(error)}"
            raise Failure(errors_pb2.ERROR_REASON_BUNDLE_REJECTED, words) from error

    def close(self) -> None:
        """Stop; what is being loaded is waited for."""
        self._thread.shutdown()

    async def _do(self, work: Callable[_P, _Found], *args: _P.args, **named: _P.kwargs) -> _Found:
        def done() -> _Found:
            try:
                return work(*args, **named)
            except (Exception, *NO_FAULTS):
                raise
            except BaseException as error:  # nobody who waits would be told
                raise ValueError(f"a library panicked: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, done)

    def _locate(self, name: str, version: str) -> Located:
        folder, found = self._repository.locate(name, version)
        started = time.monotonic()
        examined = examine_bundle(folder, name, found)
        took = time.monotonic() - started
        return Located(name, found, examined, memory_of(folder, name), took)

    def _load(self, located: Located) -> Loaded:
        started = time.monotonic() - located.seconds
        name, device = located.name, self._settings.device
        try:
            predictor, report = self._predictor(read_examined(located.examined))
            if self._settings.graphs:
                report = with_graphs(predictor, self._settings.max_batch) or report
            try:
                seen = prepare_cameras(predictor) + warm_up(predictor, self._settings.max_batch)
                if keeps_by_thread(predictor.device):
                    there = self._scheduler.between_batches
                    warm_up_there(predictor, self._settings.max_batch, there)
            except BaseException:
                without_graphs(predictor)
                raise
        except ImportError as error:  # int8's library, which is an extra
            raise Failure(errors_pb2.ERROR_REASON_BUNDLE_REJECTED, line(error)) from error
        except RuntimeError as error:  # torch's: no memory on the device, say
            if device_lost(error, torch.device(device)):
                raise
            _log.warning("a model does not run", extra={"model": name}, exc_info=error)
            raise Failure(
                errors_pb2.ERROR_REASON_BUNDLE_REJECTED,
                f"{name} does not run on {device}: {line(error)}",
            ) from error
        bundle, kind = predictor.bundle, "compiled" if predictor.numerics.compiled else "eager"
        numerics = call_pb2.Numerics(
            precision=predictor.numerics.precision,
            engine=f"torch-{torch.__version__}/{predictor.device.type}/{kind}"
            f"{_GRAPHS if predictor.lane else ''}",
        )
        joint, took = bundle.model.joint, time.monotonic() - started
        entry = ModelEntry(
            name=name,
            version=bundle.version,
            state="ready",
            default=False,
            description=describe(bundle, report, numerics).SerializeToString(),
            card=bundle.card,
            spaces={space.name: space.space_id for space in bundle.spaces},
            logit_scale=1.0 if joint is None else float(joint.log_scale.exp()),
            logit_bias=0.0 if joint is None or joint.bias is None else float(joint.bias),
            memory_bytes=_memory(predictor),
            load_seconds=took,
        )
        extra = {"model": name, "version": located.version, "seconds": took}
        fidelity = {"numerics": str(predictor.numerics), "min_cosine": report.min_cosine}
        _log.info("model loaded", extra={**extra, **fidelity})
        return Loaded(predictor, entry, seen)

    def _predictor(self, read: Bundle) -> tuple[Predictor, GoldenReport]:
        """In the numerics that were asked for, or the best of those that suit its weights."""
        precision, device = self._settings.precision, self._settings.device
        if precision != "auto":
            numerics = Numerics(precision, self._settings.compiled)
            if numerics.compiled:
                keep_compiled()
            predictor = Predictor(read, device, numerics)
            return predictor, check_golden(predictor)
        *better, last = choose(read, device, graphs=self._settings.graphs).order()
        keep_compiled()
        for numerics in better:
            try:
                predictor = Predictor(read, device, numerics)
                return predictor, check_golden(predictor)
            except (GoldenMismatch, RuntimeError) as error:
                if device_lost(error, torch.device(device)):
                    raise
                extra = {"model": read.name, "numerics": str(numerics), "reason": line(error)}
                _log.warning("numerics do not suit a model", extra=extra)
        predictor = Predictor(read, device, last)
        return predictor, check_golden(predictor)


def _memory(predictor: Predictor) -> int:
    """Bytes of its weights and tables as they are now, and of what was recorded."""
    own = sum(map(_bytes, (*predictor.model.parameters(), *predictor.model.buffers())))
    return own + (predictor.lane.memory if predictor.lane else 0)


def _bytes(tensor: torch.Tensor) -> int:
    """Of a tensor, or of what one stands for that is made of others, as int8's are."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(_bytes(getattr(tensor, name)) for name in names)


def line(error: Exception) -> str:
    """An error's first line; torch's go on for pages."""
    return str(error).partition("\n")[0]


def _telling(work: Callable[_P, _Found]) -> Callable[_P, _Found]:
    """The same work, with what a bundle may lack told as a caller is told it."""

    def told(*args: _P.args, **named: _P.kwargs) -> _Found:
        try:
            return work(*args, **named)
        except BundleNotFound as error:
            raise Failure(errors_pb2.ERROR_REASON_MODEL_NOT_FOUND, str(error), "name") from error
        except (BundleError, GoldenMismatch) as error:
            raise Failure(errors_pb2.ERROR_REASON_BUNDLE_REJECTED, str(error)) from error

    return told
