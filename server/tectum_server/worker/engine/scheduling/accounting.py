"""What a batch took, told to its jobs and to the metrics."""

from __future__ import annotations

from collections.abc import Sequence

from tectum_server.worker.engine.scheduling.progress import Place, jobs_of
from tectum_server.worker.metrics import EngineMetrics

__all__ = ["account", "observe"]


def account(places: Sequence[Place], started: float, took: float) -> None:
    """Tell the jobs of a batch what it took, seconds."""
    for progress in jobs_of(places):
        progress.compute_seconds += took
        progress.batch_size = max(progress.batch_size, len(places))
    for place in places:
        waited = started - place.progress.arrived
        place.progress.queue_seconds = max(place.progress.queue_seconds, waited)


def observe(metrics: EngineMetrics, places: Sequence[Place], started: float, took: float) -> None:
    """Tell the metrics of a batch what it took, seconds."""
    job, operation = places[0].progress.job, places[0].work[0].name
    metrics.compute_duration.labels(job.model, operation).observe(took)
    metrics.batch_size.labels(job.model, operation).observe(len(places))
    for place in places:
        metrics.queue_duration.labels(
            job.model, operation, place.progress.job.priority.name.lower()
        ).observe(started - place.progress.arrived)
