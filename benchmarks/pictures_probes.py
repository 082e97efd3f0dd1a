"""The picture beside the choice of an objective: what each row's frozen trunk tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gates_rows import LINEAR, NEIGHBOURS, ROWS, TRUNK, Row
from gates_rules import Unmeasured, find
from gates_verdicts import Results, runs_of
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.probes import EDITION

__all__ = ["PROBES", "Probed", "draw_probes", "probed"]

PROBES = {
    NEIGHBOURS: "task, by neighbours",
    LINEAR: "task, linear probe",
    f"{TRUNK} → task from 10% of the labels": "task, 10 % of labels",
    f"{TRUNK} → hand's patch": "hand's patch",
}
"""Names of measures that rows have, and what they are called above their column."""
_PIXELS = ("PCA-256", "PCA-128 of 3×3 patches")


@dataclass(frozen=True)
class Probed:
    """One row's numbers by probe, a list each over its seeds."""

    row: str
    trunk: list[list[float]]
    random: list[float]
    """The same trunk with random weights, means."""
    pixels: list[float]
    """Likewise raw pixels."""


def probed(results: Results, rows: Sequence[Row] = ROWS) -> list[Probed]:
    """Rows of which all probes were asked, by today's edition, the best by neighbours last."""
    found = [one for row in rows if (one := _probed(row, results)) is not None]
    return sorted(found, key=lambda one: mean(one.trunk[0]))


def _probed(row: Row, results: Results) -> Probed | None:
    runs = [run for run in runs_of(row, results) if run.probes == EDITION]
    try:
        asked = [[find(run.measures, name) for run in runs] for name in PROBES]
    except Unmeasured:
        return None
    if not runs or row.recipe == "world-model-small":  # whose episodes are others
        return None
    return Probed(
        row.name,
        [[one.value for one in each] for each in asked],
        [mean(one.controls["random init"] for one in each) for each in asked],
        [mean(_of_pixels(one) for one in each) for each in asked],
    )


def _of_pixels(measure: Measure) -> float:
    return next(measure.controls[name] for name in _PIXELS if name in measure.controls)


def draw_probes(found: Sequence[Probed], path: Path) -> None:
    """A column a probe, a line a row."""
    figure = Figure(figsize=(9, 0.28 * len(found) + 1.2), layout="constrained")
    columns = figure.subplots(1, len(PROBES), sharey=True)
    for number, (axis, title) in enumerate(zip(columns, PROBES.values(), strict=True)):
        _column(axis, found, number)
        axis.set_title(title, fontsize=9)
    columns[0].set_yticks(range(len(found)), [one.row for one in found], fontsize=8)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=100)


def _column(axis: Axes, found: Sequence[Probed], number: int) -> None:
    lines = range(len(found))
    values = [one.trunk[number] for one in found]
    axis.errorbar(
        [mean(each) for each in values],
        lines,
        xerr=[stdev(each) if len(each) > 1 else 0.0 for each in values],
        fmt="o",
        color="tab:blue",
        markersize=5,
        label="trained (± over seeds)",
    )
    random = [one.random[number] for one in found]
    axis.plot(random, lines, "o", label="random weights", fillstyle="none", color="tab:grey")
    pixels = [one.pixels[number] for one in found]
    axis.plot(pixels, lines, "|", label="raw pixels (PCA)", color="tab:orange")
    axis.grid(axis="x", alpha=0.3)
    axis.tick_params(labelsize=8)
