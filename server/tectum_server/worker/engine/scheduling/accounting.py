"""What a batch took, told to its jobs and to the metrics."""

from __future__ import annotations

from collections.abc import Sequence

from tectum_server.worker.engine.scheduling.progress import Place, jobs_of
from tectum_server.worker.metrics import EngineMetrics

__all__ = ["account", "observe"]


def account(places: Sequence[Place], started: float, took: float) -> None:
    """Tell the jobs of a batch what it took, seconds; batches do not overlap, and come in order."""
    for progress in jobs_of(places):
        # What earlier batches of its own took, a job has not waited for.
        progress.queue_seconds = started - progress.arrived - progress.compute_seconds
        progress.compute_seconds += took
        progress.batch_size = max(progress.batch_size, len(places))


def observe(metrics: EngineMetrics, places: Sequence[Place], started: float, took: float) -> None:
    """Tell the metrics of a batch what it took, seconds."""
    job, operation = places[0].progress.job, places[0].work[0].name
    metrics.compute_duration.labels(job.model, operation).observe(took)
    metrics.batch_size.labels(job.model, operation).observe(len(places))
    for place in places:
        metrics.queue_duration.labels(
            job.model, operation, place.progress.job.priority.name.lower()
        ).observe(started - place.progress.arrived)
