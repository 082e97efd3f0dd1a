"""Contrastive against masked: what samples and operations give, on one trunk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from gates_rows import LINEAR, NEIGHBOURS, Row
from gates_rules import Unmeasured, find
from gates_run import Found
from gates_verdicts import Results, runs_of
from tectum_train.evaluation.measuring.probes import EDITION

__all__ = ["Cost", "compared", "read_costs", "spread"]

_LINE = re.compile(r"^\| ([\w-]+) \| (\d+) \| (\d+\.\d+) \|$", re.MULTILINE)
_INTRODUCTION = (
    "What the frozen trunk tells of a frame's task, and for how much: samples seen, samples a "
    "second on two cores that do nothing else, floating-point operations of all forward and "
    "backward passes as torch counts them, and by how many points each 10¹⁵ of them raised the "
    "linear probe above random weights. All rows here have one trunk, a plain transformer: "
    "clip-plain and simclr-plain are clip and simclr without convolutions. Runs are as long as "
    "minutes allow and not of one length, so a short run's points come cheaper. *Labels*: what a "
    "recipe reads beside pictures. Task labels are what the probes ask for, so that clip-plain's "
    "numbers are not those of a trunk that nobody told of tasks; instructions name them in words. "
    "Rows that are to be measured again are left out."
)


@dataclass(frozen=True)
class Cost:
    """What a row's samples cost."""

    rate: float
    """Samples a second."""
    gflop: float
    """10⁹ floating-point operations a sample."""


def read_costs(path: Path) -> dict[str, Cost]:
    """By row, as benchmarks/minutes.py has left them; nothing where it has not."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {name: Cost(float(rate), float(gflop)) for name, rate, gflop in _LINE.findall(text)}


def compared(rows: Sequence[Row], results: Results, costs: Mapping[str, Cost]) -> list[str]:
    """Lines of the closing table."""
    lines = [line for row in rows if row.family and (line := _line(row, results, costs))]
    if not lines:
        return []
    return [
        "## Contrastive against masked\n",
        _INTRODUCTION + "\n",
        "| row | family | labels | samples | a second | 10¹⁵ operations | neighbours | "
        "linear probe | random init | points each 10¹⁵ |",
        "| --- |" + " --- |" * 9,
        *lines,
        "",
    ]


def _line(row: Row, results: Results, costs: Mapping[str, Cost]) -> str:
    """Empty: there is nothing to tell, or it is to be measured again."""
    runs = runs_of(row, results)
    if not runs or any(run.probes != EDITION for run in runs):
        return ""
    try:
        neighbours, linear = (
            [find(run.measures, name) for run in runs] for name in (NEIGHBOURS, LINEAR)
        )
    except Unmeasured:
        return ""
    random = [one.controls["random init"] for one in linear]
    gains = [one.value - before for one, before in zip(linear, random, strict=True)]
    cells = [
        *(row.name, row.family, row.labels, f"{_samples(runs[0]):,}"),
        *_cost(runs[0], costs.get(row.name)),
        *(spread([one.value for one in each]) for each in (neighbours, linear)),
        spread(random),
        _points(runs[0], gains, costs.get(row.name)),
    ]
    return f"| {' | '.join(cells)} |"


def _samples(run: Found) -> int:
    return run.steps * run.batch_size


def _operations(run: Found, cost: Cost) -> float:
    return _samples(run) * cost.gflop / 1e6


def _cost(run: Found, cost: Cost | None) -> tuple[str, str]:
    if cost is None:
        return "not measured", "not measured"
    return f"{cost.rate:.0f}", f"{_operations(run, cost):.3f}"


def _points(run: Found, gains: Sequence[float], cost: Cost | None) -> str:
    if cost is None:
        return "not measured"
    return spread([100 * gain / _operations(run, cost) for gain in gains], 0)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation; the number itself if it is the only one."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"
