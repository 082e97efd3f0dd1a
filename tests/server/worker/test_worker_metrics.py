"""docs/metrics.md says of every metric of worker and gateway what it says of itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from tests.checkout import ROOT

from tectum_server.gateway.metrics import Metrics
from tectum_server.worker.metrics import EngineMetrics, FrontMetrics


def rows_of(*owners: object) -> list[str]:
    """The rows that what these measure should have."""
    found = [one for owner in owners for one in vars(owner).values()]
    return [
        f"| `{one._name}{'_total' * (one._type == 'counter')}` | {one._type} "
        f"| {', '.join(one._labelnames)} | {one._documentation} |"
        for one in found
        if isinstance(one, MetricWrapperBase)
    ]


def told(heading: str) -> list[str]:
    """The rows under a heading."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    _, _, below = text.partition(f"\n## {heading}\n")
    section, _, _ = below.partition("\n## ")
    return [line for line in section.splitlines() if line.startswith("| `tectum_")]


def test_the_workers_table_is_what_it_measures() -> None:
    registry = CollectorRegistry()
    rows = rows_of(FrontMetrics(registry), EngineMetrics(registry))
    (about,) = FrontMetrics(CollectorRegistry()).model_info.collect()
    labels = "model, version, space_id"
    rows.insert(6, f"| `{about.name}` | gauge | {labels} | {about.documentation} |")

    assert told("The worker") == rows


def test_the_gateways_table_is_what_it_measures() -> None:
    assert told("The gateway") == rows_of(Metrics())
