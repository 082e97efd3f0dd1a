"""Planning over a world model, as a line of the table of gates.

Nothing is acted here: what benchmarks/planning.py came to lies beside its report as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

__all__ = ["AFTER", "NAME", "Arm", "Planned", "Training", "planned_line", "read_planned"]

AFTER, NAME = "world-model", "world-model-planning"
"""The row below which it stands, and what it is called."""
_RULE = (
    "nearer to the goal at the end than {controls}: the mean of the paired differences, and its "
    "whole 95 % interval, below 0"
)


@dataclass(frozen=True)
class Arm:
    """What decided, and how near it came."""

    arm: str
    reached: int
    """Episodes that ended near the goal."""
    centimetres: tuple[float, float, float]
    """From the goal at the end: the mean, and from where to where its 95 % interval goes."""
    difference: tuple[float, float, float] | None
    """Likewise, of the planner's distance less its; None: it is the planner."""
    verdict: str
    """PASS or FAIL of the planner against it; empty: it is no control."""


@dataclass(frozen=True)
class Training:
    """The one run that a bundle is of."""

    recipe: str
    """Of the package."""
    changes: tuple[str, ...]
    """What the run has in its place."""
    seed: int
    identity: str
    """Of both and of the data, as they were when it planned (`gates_run.identity`)."""


@dataclass(frozen=True)
class Planned:
    """What planning came to."""

    machine: str
    commit: str
    date: str
    bundle: str
    """Its version."""
    planner: dict[str, float]
    """The planner's settings."""
    episodes: int
    near: float
    """What counts as reached, centimetres."""
    arms: tuple[Arm, ...]
    """The planner first."""
    verdict: str
    trained: Training | None = None
    """Of the bundle; None: it was not asked, or is not known."""

    @classmethod
    def of(cls, text: str) -> Self:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: it is of another version, or no JSON.
        """
        told = json.loads(text)
        arms = tuple(
            Arm(
                **{
                    **arm,
                    "centimetres": _three(arm["centimetres"]),
                    "difference": arm["difference"] and _three(arm["difference"]),
                }
            )
            for arm in told["arms"]
        )
        if not arms:
            raise ValueError("nothing has planned")
        run = told.get("trained")
        trained = run and Training(**{**run, "changes": tuple(run["changes"])})
        return cls(**{**told, "arms": arms, "trained": trained})

    def as_json(self) -> str:
        """For a file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def _three(numbers: Sequence[float]) -> tuple[float, float, float]:
    middle, low, high = numbers
    return middle, low, high


def read_planned(path: Path) -> Planned | None:
    """What lies there; None if nothing does, or what another version left."""
    if not path.exists():
        return None
    try:
        return Planned.of(path.read_text(encoding="utf-8"))
    except (KeyError, TypeError, ValueError):
        return None


def planned_line(planned: Planned | None, now: str | None = None) -> str:
    """A line of the table.

    Args:
        planned: what there is.
        now: identity that its bundle's training would have by recipe and data as they are; None:
            it is not asked.
    """
    if planned is None:
        return f"| {NAME} |  |  |  | not measured |"
    planner, *others = planned.arms
    rule = _RULE.format(controls=", ".join(one.arm for one in others if one.verdict))
    middle, low, high = planner.centimetres
    beside = "; ".join(
        f"{one.arm} {one.centimetres[0]:.1f}" + (" ✗" if one.verdict == "FAIL" else "")
        for one in others
    )
    trained, verdict, run = "", planned.verdict, planned.trained
    if run is not None:
        changed = f" with {', '.join(run.changes)}" if run.changes else ""
        trained = f" ({run.recipe}{changed}, seed {run.seed} alone)"
        if now is not None and run.identity != now:
            verdict = f"stale: {run.recipe} or its data have changed since"
    found = (
        f"reaching in the simulator, {planned.episodes} paired episodes<br>distance at the end, "
        f"cm: **{middle:.1f}** [{low:.1f}, {high:.1f}] ({beside})<br>ends within {planned.near:g} "
        f"cm: {planner.reached} of {planned.episodes}<br>measured by {planned.commit}, "
        f"{planned.date}, over one bundle, {planned.bundle}{trained}: planning.md"
    )
    return f"| {NAME} | {rule} | {found} |  | {verdict} |"
