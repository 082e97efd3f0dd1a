"""Pictures of a load: latencies over time, and how they are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from tectum_cli.load.driving import Outcome, Result
from tectum_cli.load.fleet import fleet_summary
from tectum_cli.load.robots import Robot, Shown

__all__ = ["draw", "draw_frames"]

_COLOURS = {
    Outcome.ANSWERED: "#3b6ea5",
    Outcome.REFUSED: "#c9902c",
    Outcome.EXPIRED: "#b0413e",
    Outcome.FAILED: "#222222",
    Outcome.UNSENT: "#999999",
}
_SHOWN_COLOURS = {
    Shown.OK: "#3b6ea5",
    Shown.SUPERSEDED: "#c9902c",
    Shown.STALE: "#b0413e",
    Shown.FAILED: "#222222",
}


def draw(
    results: Sequence[Result],
    by_class: Mapping[str, Sequence[Result]],
    out: Path,
    begins: float = 0.0,
) -> None:
    """Draw each call at its time, and for each class the share that took longer than so long.

    Args:
        results: calls.
        by_class: the same, by their classes' names.
        out: the file, PNG.
        begins: seconds before which none is drawn.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    over_time, spread = figure.subplots(1, 2)
    for outcome, colour in _COLOURS.items():
        own = [one for one in results if one.at >= begins and one.answer.outcome is outcome]
        if own:
            over_time.scatter(
                [one.at for one in own],
                [max(one.took * 1000, 0.01) for one in own],
                s=5, color=colour, label=f"{outcome.value} ({len(own)})", linewidths=0,
            )  # fmt: skip
    over_time.set(xlabel="meant to be sent at, s", ylabel="ended after, ms", yscale="log")
    if results:
        over_time.legend(fontsize=8, loc="best")
    for word, members in by_class.items():
        times = sorted(one.took * 1000 for one in members if one.at >= begins and one.answered)
        if times:
            longer = [1 - place / len(times) for place in range(len(times))]
            spread.step(times, longer, where="pre", label=word)
    spread.set(xlabel="latency of answers, ms", ylabel="share that took longer", yscale="log")
    spread.grid(visible=True, which="major", alpha=0.3)
    if spread.lines:
        spread.legend(fontsize=8)
    figure.savefig(out, dpi=130)


def draw_frames(
    by_class: Mapping[str, Sequence[Robot]], out: Path, ends: float, begins: float = 0.0
) -> None:
    """Draw each frame's age when it was heard what became of it, and how often robots had answers.

    Args:
        by_class: robots by their classes' names.
        out: the file, PNG.
        ends: seconds after which no frame is drawn that was captured.
        begins: likewise, before which.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    over_time, fairness = figure.subplots(1, 2)
    robots = [robot for members in by_class.values() for robot in members]
    filmed = [one for robot in robots for one in robot.frames if begins <= one.at < ends]
    for shown, colour in _SHOWN_COLOURS.items():
        own = [(one.at, one.age) for one in filmed if one.shown is shown and one.age is not None]
        if own:
            over_time.scatter(
                [at for at, _ in own], [max(age * 1000, 0.01) for _, age in own],
                s=5, color=colour, label=f"{shown.value} ({len(own)})", linewidths=0,
            )  # fmt: skip
    over_time.set(xlabel="captured at, s", ylabel="age when heard of, ms", yscale="log")
    if over_time.collections:
        over_time.legend(fontsize=8, loc="best")
    for word, members in by_class.items():
        rates = fleet_summary(members, ends, begins).rates
        fairness.plot(range(1, len(rates) + 1), rates, marker=".", label=word)
    fairness.set(xlabel="robots, the least answered first", ylabel="frames answered a second")
    fairness.set_ylim(bottom=0)
    if fairness.lines:
        fairness.legend(fontsize=8)
    figure.savefig(out, dpi=130)
