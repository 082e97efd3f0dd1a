"""docs/metrics.md says of every metric of the worker's what it says of itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from tests.checkout import ROOT

from tectum_server.worker.metrics import EngineMetrics, FrontMetrics


def test_the_table_is_what_the_worker_measures() -> None:
    registry = CollectorRegistry()
    owners = (FrontMetrics(registry), EngineMetrics(registry))
    found = [one for owner in owners for one in vars(owner).values()]
    metrics = [one for one in found if isinstance(one, MetricWrapperBase)]

    rows = [
        f"| `{one._name}{'_total' * (one._type == 'counter')}` | {one._type} "
        f"| {', '.join(one._labelnames)} | {one._documentation} |"
        for one in metrics
    ]

    (about,) = FrontMetrics(CollectorRegistry()).model_info.collect()
    labels = "model, version, space_id"
    rows.insert(6, f"| `{about.name}` | gauge | {labels} | {about.documentation} |")

    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    told = [line for line in text.splitlines() if line.startswith("| `tectum_")]
    assert told == rows
