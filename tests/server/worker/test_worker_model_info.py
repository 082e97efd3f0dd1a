"""What is told of the models that serve: all processes' together, and no version that has gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from tectum_server.worker.metrics import FrontMetrics, forget_process, share_metrics
from tectum_server.worker.model_info import ModelInfo, SharedModelInfo

LABELS = st.tuples(*[st.text(max_size=5)] * 3)


def one(version: str) -> tuple[str, str, str]:
    """A space of a version's."""
    return ("arm", version, f"space of {version}")


def told(registry: CollectorRegistry) -> set[tuple[str, ...]]:
    """Every label set that is scraped."""
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    assert all((s.name, s.value) == ("tectum_model_info", 1) for s in samples)
    return {tuple(s.labels[k] for k in ("model", "version", "space_id")) for s in samples}


def shared(folder: Path) -> CollectorRegistry:
    """What the supervisor scrapes."""
    registry = CollectorRegistry()
    registry.register(SharedModelInfo(folder))
    return registry


@given(st.lists(st.sets(LABELS, max_size=4), max_size=5))
def test_only_what_was_told_last_is_told(changes: list[set[tuple[str, str, str]]]) -> None:
    registry = CollectorRegistry()
    info = ModelInfo(registry, None)

    for serves in changes:
        info.tell(serves)

    assert told(registry) == (changes[-1] if changes else set())


def test_two_thousand_versions_leave_no_more_than_one(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    info, sizes = ModelInfo(registry, tmp_path), list[int]()

    for number in range(2000):
        info.tell([one(f"{number:016x}")])
        if number in (0, 1999):
            everywhere = len(generate_latest(registry)) + len(generate_latest(shared(tmp_path)))
            sizes.append(everywhere + sum(file.stat().st_size for file in tmp_path.iterdir()))

    assert sizes[0] == sizes[1]
    assert told(shared(tmp_path)) == {one(f"{1999:016x}")}


def test_processes_are_told_together_as_long_as_they_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid, versions in ((7, ("1", "2")), (8, ("2", "3"))):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        ModelInfo(CollectorRegistry(), tmp_path).tell(map(one, versions))
    together = told(shared(tmp_path))

    forget_process(7, tmp_path)
    forget_process(9, tmp_path)  # it said nothing

    assert together == {one("1"), one("2"), one("3")}
    assert told(shared(tmp_path)) == {one("2"), one("3")}


def test_a_front_of_a_worker_of_processes_writes_where_the_supervisor_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", share_metrics(tmp_path))

    FrontMetrics(CollectorRegistry()).model_info.tell([one("1")])

    assert told(shared(tmp_path)) == {one("1")}


def test_a_folder_that_is_gone_costs_the_metric_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()

    ModelInfo(registry, tmp_path / "gone").tell([one("1")])

    assert told(registry) == {one("1")}
    assert "not up to date" in caplog.text
