"""Everything the worker measures, under the names its dashboards rely on.

Each process observes what happens in it; prometheus-client's multiprocess files join
them, and the supervisor answers scrapes for all. Labels are few and bounded: names of
rpcs, models, operations, priorities, codes, reasons and statuses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tectum_server.worker.jobs import ModelEntry, Priority
from tectum_server.worker.model_info import ModelInfo, SharedModelInfo, forget_model_info
from tectum_server.worker.scraping import answer_scrapes

__all__ = ["EngineMetrics", "FrontMetrics", "forget_process", "serve_metrics", "share_metrics"]

# Half a millisecond to half a minute: a control loop's answers and a bulk job's alike.
_SECONDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
# A millisecond to a second, closer about what a front's event loop may be kept.
_DELAYS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that has prometheus-client write into a folder."""
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class FrontMetrics:
    """What happens at the wire."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.request_duration = Histogram(
            "tectum_request_duration_seconds",
            "From a request's arrival to its answer.",
            ("rpc", "model", "priority", "code"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.decode_duration = Histogram(
            "tectum_decode_duration_seconds",
            "Reading one image.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.loop_delay = Histogram(
            "tectum_loop_delay_seconds",
            "How late a front's event loop came to a timer, again and again.",
            buckets=_DELAYS,
            registry=registry,
        )
        self.refused = Counter(
            "tectum_requests_refused",
            "Requests and stream frames refused for want of room, time, an engine or credentials, "
            "by ErrorReason.",
            ("reason",),
            registry=registry,
        )
        self.stream_frames = Counter(
            "tectum_stream_frames",
            "Stream frames by what their client was told of them: OK, STALE, SUPERSEDED or FAILED.",
            ("model", "status"),
            registry=registry,
        )
        self.stream_age = Histogram(
            "tectum_stream_age_seconds",
            "From an OK stream frame's capture to when its answer was sent.",
            buckets=_SECONDS,
            registry=registry,
        )
        shared = os.environ.get(_SHARED)
        self.model_info = ModelInfo(registry, Path(shared) if shared else None)
        self.streams_open = Gauge(
            "tectum_streams_open",
            "Streams that are open.",
            multiprocess_mode="livesum",
            registry=registry,
        )


class EngineMetrics:
    """What happens in the engine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_duration = Histogram(
            "tectum_queue_duration_seconds",
            "An item's wait for the engine.",
            ("model", "op", "priority"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.compute_duration = Histogram(
            "tectum_compute_duration_seconds",
            "A batch in the engine.",
            ("model", "op"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "tectum_batch_size",
            "Items in a batch.",
            ("model", "op"),
            buckets=_SIZES,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "tectum_queue_depth",
            "Items waiting.",
            ("priority",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.model_loads = Counter(
            "tectum_model_loads",
            "Models that were loaded, rejected, or evicted to make room.",
            ("model", "outcome"),
            registry=registry,
        )
        self.model_memory = Gauge(
            "tectum_model_memory_bytes",
            "What a model's weights take in memory, in all engines; 0 while it has made room.",
            ("model",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.model_rejected = Gauge(
            "tectum_model_rejected",
            "1 while the version that should serve was rejected, whatever serves instead.",
            ("model",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._models: set[str] = set()
        self._depths = [self.queue_depth.labels(one.name.lower()) for one in Priority]
        self._depth: dict[int, int] = {}

    def tell_models(self, models: Mapping[str, ModelEntry]) -> None:
        """What there is of each model; of those that are gone, nothing."""
        for name in self._models | models.keys():
            entry = models.get(name)
            self.model_memory.labels(name).set(entry.memory_bytes if entry else 0)
            rejected = entry is not None and entry.rejection is not None
            self.model_rejected.labels(name).set(int(rejected))
        self._models |= models.keys()

    def set_depth(self, depth: Mapping[int, int]) -> None:
        """Waiting items by priority."""
        for priority, gauge in zip(Priority, self._depths, strict=True):
            count = depth.get(priority, 0)
            if count != self._depth.get(priority):
                self._depth[priority] = count
                gauge.set(count)


def serve_metrics(host: str, port: int, source: CollectorRegistry | Path) -> None:
    """Answer scrapes on threads.

    Args:
        host, port: where.
        source: this process's registry, or the folder in which all processes write theirs.

    Raises:
        OSError: the port is taken.
    """
    if isinstance(source, Path):
        folder, source = source, CollectorRegistry()
        MultiProcessCollector(source, str(folder))  # type: ignore[no-untyped-call]
        source.register(SharedModelInfo(folder))
    answer_scrapes(host, port, source)


def forget_process(pid: int, folder: Path) -> None:
    """Drop what only a living process may say, such as its queue's depth, once it is dead."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    forget_model_info(pid, folder)


def share_metrics(folder: Path) -> dict[str, str]:
    """The environment under which child processes write their metrics into `folder`."""
    return {**os.environ, _SHARED: str(folder)}
