"""The picture of what frozen trunks tell: which rows are in it, and what of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.benchmarks.finished import found

from gates_rows import Row
from gates_verdicts import Results
from pictures_probes import PROBES, draw_probes, probed
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.probes import EDITION

ROWS = [Row(name, "r", ()) for name in ("mae", "clip", "mlm")]


def asked(row: str, seed: int, value: float) -> Results:
    """A run of which every probe was asked."""
    *tasks, patch = PROBES
    controls = {"random init": 0.1, "PCA-256": 0.3}
    measures = [Measure(name, value, controls) for name in tasks]
    hand = Measure(patch, value, {"random init": 0.6, "PCA-128 of 3×3 patches": 0.7})
    return {(row, seed): found(row, seed, *measures, hand)}


def test_rows_stand_in_the_order_of_what_neighbours_tell_with_every_seed() -> None:
    results = {**asked("clip", 0, 0.8), **asked("mae", 0, 0.2), **asked("mae", 1, 0.4)}

    low, high = probed(results, ROWS)

    assert (low.row, high.row) == ("mae", "clip")
    assert low.trunk == [[0.2, 0.4]] * 4
    assert low.random == pytest.approx([0.1, 0.1, 0.1, 0.6])
    assert low.pixels == pytest.approx([0.3, 0.3, 0.3, 0.7])


def test_rows_that_were_not_asked_or_by_older_probes_are_left_out() -> None:
    results = {**asked("clip", 0, 0.8), ("mlm", 0): found("mlm", 0, Measure("words", 0.2))}
    older = {("clip", 0): replace(results["clip", 0], probes=EDITION - 1)}

    assert [one.row for one in probed(results, ROWS)] == ["clip"]
    assert probed({**results, **older}, ROWS) == []


def test_it_is_drawn(tmp_path: Path) -> None:
    draw_probes(probed({**asked("clip", 0, 0.8), **asked("mae", 0, 0.2)}, ROWS), tmp_path / "p.png")

    assert (tmp_path / "p.png").stat().st_size > 5000
