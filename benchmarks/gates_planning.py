"""Planning over a world model, as a line of the table of gates.

Nothing is acted here: what benchmarks/planning.py came to lies beside its report as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

__all__ = [
    "AFTER",
    "NAME",
    "Arm",
    "Planned",
    "Training",
    "planned_line",
    "planned_section",
    "read_planned",
    "told",
]

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
        return f"| {NAME} |  | not measured |"
    planner, *others = planned.arms
    rule = _RULE.format(controls=", ".join(one.arm for one in others if one.verdict))
    verdict, run = f"{planned.verdict}, of one bundle", planned.trained
    if run is None:
        verdict = "none: how its bundle was trained is not known"
    elif now is not None and run.identity != now:
        verdict = f"stale: {run.recipe}, its data or its trunk have changed since"
    failed = [one.arm for one in others if one.verdict == "FAIL"]
    found = f"centimetres from the goal at the end: {_interval(planner)}"
    against = f" ✗ against {', '.join(failed)}" if failed else ""
    return f"| [{NAME}](gates/{NAME}.md) | {found}{against}: {rule} | {verdict} |"


def told(trained: Training | None) -> str:
    """How a bundle was trained."""
    if trained is None:
        return "of which nobody knows how it was trained"
    changed = f" with {', '.join(trained.changes)}" if trained.changes else ""
    return f"{trained.recipe}{changed}, seed {trained.seed} alone"


def planned_section(planned: Planned | None) -> list[str]:
    """What it came to, and what each control did, under its name; nothing if it was not tried."""
    if planned is None:
        return []
    return [
        f"# {NAME}\n",
        f"Reaching in the simulator, {planned.episodes} paired episodes, over one bundle, "
        f"{planned.bundle} ({told(planned.trained)}); measured by {planned.commit}, "
        f"{planned.date}; with every detail in [planning.md](../planning.md).\n",
        f"| what decides | centimetres from the goal at the end | within {planned.near:g} cm |",
        "| --- | --- | --- |",
        *(
            f"| {one.arm} | {_interval(one)}{' ✗' if one.verdict == 'FAIL' else ''} | "
            f"{one.reached} of {planned.episodes} |"
            for one in planned.arms
        ),
        "",
    ]


def _interval(arm: Arm) -> str:
    middle, low, high = arm.centimetres
    return f"**{middle:.1f}** [{low:.1f}, {high:.1f}]"
