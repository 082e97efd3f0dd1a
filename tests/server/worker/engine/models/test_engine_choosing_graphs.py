"""Candidates of `precision: auto` are timed as they would serve: by graphs, or without."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.late_device import LateDevice
from tests.server.worker.engine.engines import Started, job

from tectum_core.bundle import read_bundle
from tectum_server.worker.engine.models import choosing
from tectum_server.worker.engine.models.choosing import choose


def test_candidates_are_timed_by_graphs_which_are_freed_then(
    late: LateDevice, bare_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []
    original: Callable[[choosing._Work], float] = choosing._Work.timed

    def counted(work: choosing._Work) -> float:
        before = late.replays
        took = original(work)
        timed.append(late.replays - before)
        return took

    monkeypatch.setattr(choosing._Work, "timed", counted)
    monkeypatch.setattr(choosing, "CANDIDATES", (choosing.CANDIDATES[0], choosing.CANDIDATES[2]))

    choice = choose(read_bundle(bare_folder, "arm"), "cpu", tmp_path / "kept")

    assert set(timed) == {1}  # one launch for a batch
    assert [tried.why for tried in choice.tried] == ["", ""]
    assert all(pool.closed for pool in late.pools)
    gc.collect()
    assert late.held == 0


@pytest.mark.parametrize("graphs", [True, False])
async def test_candidates_are_timed_as_they_would_serve(
    started: Started, late: LateDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    graphs: bool,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "CANDIDATES", (choosing.CANDIDATES[0], choosing.CANDIDATES[2]))

    engine = await started("arm", precision="auto", graphs=graphs)

    assert len((await engine.submit(job())).outputs) == 1
    assert (late.replays > 0) is graphs
    assert len(late.pools) == (4 if graphs else 0)  # the reference, two candidates, what serves


@pytest.mark.parametrize("graphs", [True, False])
def test_what_was_chosen_by_graphs_is_kept_apart(
    monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "A GPU")

    assert ("graphs" in choosing.kind_of_host("cuda", graphs)) is graphs
    assert choosing.kind_of_host("cpu", graphs) == choosing.kind_of_host("cpu")


def test_a_device_that_is_lost_while_it_is_tried_says_nothing_of_a_candidate(
    bare_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(work: choosing._Work) -> float:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(choosing._Work, "timed", lose)
    monkeypatch.setattr(choosing, "CANDIDATES", (choosing.CANDIDATES[0], choosing.CANDIDATES[2]))
    read, kept = read_bundle(bare_folder, "arm"), tmp_path / "kept"

    assert "AcceleratorError" in choose(read, "cpu", tmp_path / "other").tried[1].why
    monkeypatch.setattr(choosing, "device_lost", lambda error, device: True)
    with pytest.raises(torch.AcceleratorError):
        choose(read, "cpu", kept)

    assert not kept.exists()
