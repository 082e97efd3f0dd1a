"""Planning over a world model, as a line of the table of gates.

Nothing is acted here: what benchmarks/planning.py came to lies beside its report as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

__all__ = ["AFTER", "NAME", "Arm", "Planned", "planned_line", "read_planned"]

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
class Planned:
    """What planning came to."""

    machine: str
    commit: str
    date: str
    bundle: str
    """Its version."""
    planner: dict[str, int]
    """The planner's sizes."""
    episodes: int
    near: float
    """What counts as reached, centimetres."""
    arms: tuple[Arm, ...]
    """The planner first."""
    verdict: str

    @classmethod
    def of(cls, text: str) -> Self:
        """From JSON.

        Raises:
            TypeError: it is of another version.
        """
        told = json.loads(text)
        arms = tuple(
            Arm(
                **{
                    **arm,
                    "centimetres": tuple(arm["centimetres"]),
                    "difference": arm["difference"] and tuple(arm["difference"]),
                }
            )
            for arm in told["arms"]
        )
        return cls(**{**told, "arms": arms})

    def as_json(self) -> str:
        """For a file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_planned(path: Path) -> Planned | None:
    """What lies there; None if nothing does."""
    return Planned.of(path.read_text(encoding="utf-8")) if path.exists() else None


def planned_line(planned: Planned | None) -> str:
    """A line of the table."""
    if planned is None:
        return f"| {NAME} |  |  |  | not measured |"
    planner, *others = planned.arms
    rule = _RULE.format(controls=", ".join(one.arm for one in others if one.verdict))
    middle, low, high = planner.centimetres
    beside = "; ".join(
        f"{one.arm} {one.centimetres[0]:.1f}" + (" ✗" if one.verdict == "FAIL" else "")
        for one in others
    )
    found = (
        f"reaching in the simulator, {planned.episodes} paired episodes<br>distance at the end, "
        f"cm: **{middle:.1f}** [{low:.1f}, {high:.1f}] ({beside})<br>ends within {planned.near:g} "
        f"cm: {planner.reached} of {planned.episodes}<br>measured by {planned.commit}, "
        f"{planned.date}, over bundle {planned.bundle}: planning.md"
    )
    return f"| {NAME} | {rule} | {found} |  | {planned.verdict} |"
