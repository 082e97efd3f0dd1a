"""What the rounds of a serving benchmark say, and how sure that is.

The rounds of one start of the two processes share where their memory fell, so a start, not a round,
is one observation: an estimate is the mean over starts, its 95 % interval Student's t over them. (A
bootstrap of five starts holds the truth in 83 % of cases only.) A gate is passed or failed only
where the whole interval is on one side of it; else it is undecided.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from scipy import stats

from serving_bare import PHOTOGRAPH, SIDE

__all__ = ["CALLERS", "Estimate", "Round", "estimate", "table"]

CALLERS = 16
SHARE, OF_BOUND, MORE = 0.95, 0.90, 2.0
"""Gates: of the bare forward's rate, of what decoding leaves of it, and milliseconds beyond it."""


@dataclass
class Round:
    """What one turn of each gave."""

    bare: float
    """Images a second in the best batch."""
    served: float
    """Images a second to all callers."""
    batch: float
    """Mean size of the batches that served them."""
    decoded: float
    """Photographs a second that all cores decode."""
    seen: float
    """Photographs a second to all callers."""
    bare_one: list[float]
    """Seconds of bare forwards of one image."""
    served_one: list[float]
    """Seconds of one caller's calls, each made right after the bare forward of its place."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    least: float
    most: float

    def at_least(self, gate: float) -> str:
        """Whether it is `gate` or more."""
        return _verdict(self.least >= gate, self.most < gate)

    def at_most(self, gate: float) -> str:
        """Whether it is `gate` or less."""
        return _verdict(self.most <= gate, self.least > gate)

    def told(self, digits: int, unit: str = "") -> str:
        """To print."""
        if math.isinf(self.most):
            return f"{self.value:.{digits}f}{unit} (one start: no interval)"
        least, most = (f"{end:.{digits}f}" for end in (self.least, self.most))
        return f"{self.value:.{digits}f}{unit} ({least} to {most})"


def estimate(of_starts: list[float]) -> Estimate:
    """What independent starts give together; of one alone nothing is sure."""
    value = statistics.mean(of_starts)
    if len(of_starts) == 1:
        return Estimate(value, -math.inf, math.inf)
    error = statistics.stdev(of_starts) / math.sqrt(len(of_starts))
    reach = float(stats.t.ppf(0.975, len(of_starts) - 1)) * error
    return Estimate(value, value - reach, value + reach)


def table(sizes: dict[int, float], best: int, starts: list[list[Round]]) -> str:
    """The report's body: the gates, then every round.

    Args:
        sizes: of the bare forward, images a second by batch.
        best: batch that the bare forward was measured in.
        starts: the rounds of each pair of processes.
    """

    def over(of_start: Callable[[list[Round]], float]) -> Estimate:
        return estimate([of_start(rounds) for rounds in starts])

    share, extra, batch = over(_share), over(_extra), over(_batch)
    of_bound, photographs = over(_of_bound), "×".join(map(str, PHOTOGRAPH))
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    singles = sum(len(one.bare_one) for rounds in starts for one in rounds)
    lines = [
        f"ViT-B/32 shape, float32, eager, raw {SIDE}-pixel pictures; bare = trunk and projection "
        f"on ready tensors; OMP_WAIT_POLICY {policy}. Starts of a fresh worker and a fresh process "
        f"for the bare forward: {len(starts)}. Legs interleaved; single calls and bare forwards of "
        "one picture one about. Each number is the mean over starts, with the 95 % interval of "
        "Student's t over them; within a start, the ratio is that of the means over its rounds, "
        "and the extra time the median of a call less the bare forward right before it "
        f"({singles} of them in all). Undecided: the gate lies within the interval.\n",
        "| | found | gate | |",
        "| --- | --- | --- | --- |",
        f"| {CALLERS} callers: images/s ÷ bare forward in batches of {best} | {share.told(3)} "
        f"| ≥ {SHARE:.2f} | {share.at_least(SHARE)} |",
        f"| {CALLERS} callers of {photographs} JPEGs: images/s ÷ 1/(decode + forward) "
        f"| {of_bound.told(3)} | ≥ {OF_BOUND:.2f} | {of_bound.at_least(OF_BOUND)} |",
        f"| one caller: median beyond the bare forward | {extra.told(1, ' ms')} | ≤ {MORE:g} ms "
        f"| {extra.at_most(MORE)} |",
        f"| {CALLERS} callers: mean batch, from the metric | {batch.told(1)} | > 1 "
        f"| {batch.at_least(math.nextafter(1, 2))} |",
        "",
        "Bare images/s by batch: " + ", ".join(f"{b}: {sizes[b]:.1f}" for b in sizes) + ".\n",
        f"| start | bare {best}, images/s | {CALLERS} callers, images/s | ratio | mean batch | "
        "JPEGs decoded/s | callers of JPEGs, images/s | of the bound | bare 1, ms | one caller, ms "
        "|",
        "| --- |" + " --- |" * 9,
    ]
    for number, rounds in enumerate(starts, start=1):
        lines += [
            f"| {number} | {one.bare:.1f} | {one.served:.1f} | {one.served / one.bare:.3f} | "
            f"{one.batch:.1f} | {one.decoded:.0f} | {one.seen:.1f} | {_of_bound([one]):.3f} | "
            f"{_median_ms(one.bare_one)} | {_median_ms(one.served_one)} |"
            for one in rounds
        ]
    return "\n".join(lines) + "\n"


def _share(rounds: list[Round]) -> float:
    """Of the bare forward's mean rate, the callers'."""
    return sum(one.served for one in rounds) / sum(one.bare for one in rounds)


def _of_bound(rounds: list[Round]) -> float:
    """Of the rate that decoding and the bare forward leave when done one after the other."""
    decoded, bare = sum(one.decoded for one in rounds), sum(one.bare for one in rounds)
    bound = 1 / (1 / decoded + 1 / bare)  # of sums: so many times the one of means
    return sum(one.seen for one in rounds) / bound


def _extra(rounds: list[Round]) -> float:
    """Milliseconds of one caller's call beyond the bare forward before it, median."""
    pairs = [pair for one in rounds for pair in zip(one.bare_one, one.served_one, strict=True)]
    return statistics.median(served - bare for bare, served in pairs) * 1000


def _batch(rounds: list[Round]) -> float:
    return statistics.mean(one.batch for one in rounds)


def _verdict(passed: bool, failed: bool) -> str:
    return "PASS" if passed else "FAIL" if failed else "undecided"


def _median_ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.1f}"
