"""Contrastive against masked: what samples and operations gave, where it was measured."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.finished import found, runs

import minutes
from gates_compared import Cost, read_costs
from gates_rows import LINEAR, NEIGHBOURS, Row
from gates_rules import Times
from gates_table import table
from tectum_train.evaluation.measuring.measure import Measure

RANDOM = {"random init": 0.3, "PCA-256": 0.4}
CLIP = Row("clip", "clip-small", (Times("R@1", "chance", 5),))


def test_the_closing_table_says_what_the_probe_gained_for_as_many_operations() -> None:
    probes = Measure(NEIGHBOURS, 0.5, RANDOM), Measure(LINEAR, 0.6, RANDOM)
    results = {("mae", 0): found("mae", 0, *probes)}
    rows = [
        Row("mae", "mae-small", (), family="masked", labels="words"),
        Row("dino", "dino-small", ()),
    ]

    closing = table(rows, results, costs={"mae": Cost(321.0, 2.5)}).partition("## Contr")[2]
    without = table(rows, results).partition("## Contr")[2]

    # 100 steps of 60 samples of 2.5 · 10⁹: 0.015 · 10¹⁵ for 30 points.
    assert (
        "| mae | masked | words | 6,000 | 321 | 0.015 | 0.500 | 0.600 | 0.300 | 2000 |" in closing
    )
    assert "dino" not in closing
    assert (
        "| 6,000 | not measured | not measured | 0.500 | 0.600 | 0.300 | not measured |" in without
    )


def test_what_samples_cost_is_read_where_minutes_has_left_it(tmp_path: Path) -> None:
    left = tmp_path / "minutes.md"
    left.write_text(
        minutes.table([minutes.Taken("mae-small", 10, 2, (4.0,))])
        + minutes.costs([minutes.Cost("mae", 321.4, 2.5), minutes.Cost("mae-block", 5, 0.1234)])
    )

    assert read_costs(left) == {"mae": Cost(321, 2.5), "mae-block": Cost(5, 0.123)}
    assert read_costs(tmp_path / "none.md") == {}


def test_without_a_family_there_is_no_closing_table() -> None:
    assert "Contrastive against masked" not in table([CLIP], runs("clip", 0.6))
