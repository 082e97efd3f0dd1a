"""What came of robots' streams: how often each was answered, and how old answers were.

Rates are of answers that came while it was measured; shares, of the frames that were captured in
that time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tectum_cli.load.report import PERCENTILES, percentile
from tectum_cli.load.robots import Filmed, Robot, Shown

__all__ = ["FleetSummary", "fleet_lines", "fleet_summary"]


@dataclass(frozen=True)
class FleetSummary:
    """Of some robots."""

    robots: int
    captured: float
    """Frames a second, of all robots."""
    answered: float
    """Likewise, answers that are OK."""
    rates: list[float]
    """Such answers a second, of each robot, the fewest first."""
    shares: dict[str, float]
    """Of all frames, by what became of them (`Shown`)."""
    reasons: dict[str, int]
    """Why frames failed, the commonest first."""
    age_ms: dict[str, float]
    """Of such answers, from a frame's capture until it was heard: by percentile, and `max`."""
    paired: float
    """Share of such answers that have a latent action; NaN of none."""
    compute_ms: float
    """Mean of such answers' batches."""
    mean_batch: float
    ended: dict[str, int]
    """Why streams ended by themselves, or were never accepted."""


def fleet_summary(robots: Sequence[Robot], ends: float, begins: float = 0.0) -> FleetSummary:
    """Summarise.

    Args:
        robots: when all is over.
        ends: when measuring did, seconds.
        begins: when measuring did.
    """
    filmed = [one for robot in robots for one in robot.frames if begins <= one.at < ends]
    answers = [_answers(robot, begins, ends) for robot in robots]
    good = [one for own in answers for one in own]
    ages = [one.age for one in good if one.age is not None]
    shown = Counter(one.shown for one in filmed)
    reasons = Counter(one.reason for one in filmed if one.shown is Shown.FAILED)
    told = {f"p{percent:g}": 1000 * percentile(ages, percent) for percent in PERCENTILES}
    span = ends - begins
    return FleetSummary(
        robots=len(robots),
        captured=len(filmed) / span,
        answered=len(good) / span,
        rates=sorted(len(own) / span for own in answers),
        shares={word.value: shown[word] / len(filmed) for word in Shown if filmed},
        reasons=dict(reasons.most_common()),
        age_ms={**told, "max": 1000 * max(ages)} if ages else {},
        paired=_mean([float(one.paired) for one in good]),
        compute_ms=1000 * _mean([one.compute for one in good]),
        mean_batch=_mean([float(one.batch) for one in good]),
        ended=dict(Counter(robot.ended for robot in robots if robot.ended).most_common()),
    )


def _answers(robot: Robot, begins: float, ends: float) -> list[Filmed]:
    """Those that are OK, and were heard in that time."""
    return [
        one
        for one in robot.frames
        if one.shown is Shown.OK and one.heard is not None and begins <= one.heard <= ends
    ]


def fleet_lines(
    found: FleetSummary, by_class: Mapping[str, FleetSummary], *, paired: bool
) -> Iterator[str]:
    """The report for a terminal, with a table of the classes if there are several.

    Args:
        found: of all robots.
        by_class: the same by their priorities' names.
        paired: whether latent actions were asked for.
    """
    rates = found.rates
    yield (
        f"{found.answered:.1f} frames/s answered of {found.captured:.1f} from {found.robots} robots"
    )
    yield (
        f"of each robot, frames/s answered: fewest {rates[0]:.2f}, "
        f"mean {_mean(rates):.2f}, most {rates[-1]:.2f}"
    )
    shares = ", ".join(f"{word} {share:.1%}" for word, share in found.shares.items())
    yield f"of all frames: {shares or 'none'}"
    if found.reasons:
        yield "failed: " + ", ".join(f"{n} {why}" for why, n in found.reasons.items())
    if found.ended:
        yield "streams that ended: " + ", ".join(f"{n} {why}" for why, n in found.ended.items())
    if found.age_ms:
        ages = ", ".join(f"{name} {time:.1f}" for name, time in found.age_ms.items())
        yield f"age of answers ms: {ages}"
        more = f"; with a latent action: {found.paired:.1%}" if paired else ""
        yield f"compute ms: {found.compute_ms:.1f}; mean batch {found.mean_batch:.1f}{more}"
    if len(by_class) > 1:
        yield ""
        columns = ("fewest/s", "most/s", "p50 ms", "p99 ms", "ok")
        yield f"{'':<14}{'robots':>8}" + "".join(f"{column:>9}" for column in columns)
        for word, one in by_class.items():
            median, slow = (one.age_ms.get(name, math.nan) for name in ("p50", "p99"))
            share = one.shares.get(Shown.OK, math.nan)
            yield (
                f"{word:<14}{one.robots:>8}{one.rates[0]:>9.2f}{one.rates[-1]:>9.2f}"
                f"{median:>9.1f}{slow:>9.1f}{share:>9.3f}"
            )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
