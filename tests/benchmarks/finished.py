"""Finished runs, as little of each as the table of gates reads."""

from __future__ import annotations

from gates_run import Found
from gates_verdicts import Results
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.probes import EDITION


def found(row: str, seed: int, *measures: Measure, cpu: float = 60.0) -> Found:
    """Of one seed, measured by today's probes on the judged episodes."""
    return Found(
        row=row, seed=seed, recipe="r", changes=[], identity="", steps=100, batch_size=60,
        wall_seconds=120.0, cpu_seconds=cpu, threads=2, machine="m", commits="c",
        measured_by="c", date="2026-01-01", measures=list(measures), judged="j", probes=EDITION,
    )  # fmt: skip


def runs(row: str, *values: float, name: str = "R@1") -> Results:
    """Of one number, a seed for each value; chance is 0.1."""
    return {
        (row, seed): found(row, seed, Measure(name, value, {"chance": 0.1}))
        for seed, value in enumerate(values)
    }
