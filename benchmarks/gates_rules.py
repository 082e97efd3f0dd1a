"""Rules by which a run is held to have learnt: pure functions of what was measured.

A rule looks at the measures of one run, and at those of other rows' runs with the same seed where
it compares; it gives lines to print, each with its verdict. Nothing here trains, reads or writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Protocol

from tectum_train.evaluation.measuring.better import BEYOND, beyond
from tectum_train.evaluation.measuring.measure import Measure

__all__ = [
    "Above",
    "Beside",
    "Beyond",
    "Divided",
    "Kept",
    "Line",
    "Others",
    "Own",
    "Rising",
    "Rule",
    "Shown",
    "Task",
    "Times",
    "Unmeasured",
    "find",
    "holds",
]

Others = Mapping[str, Sequence[Measure]]
"""Other rows' measures with the same seed, by row."""
MARGIN = 0.01
"""Better than a control means by one percent of it, as in `tectum_train.evaluation.gates`."""


_LEAST = 0.05
"""A relative gain over less, such as an R² of nothing learnt, would outweigh all others."""


class Unmeasured(LookupError):
    """A measure that a rule reads is not there; says which."""


@dataclass(frozen=True)
class Line:
    """One number of one run."""

    what: str
    """What was measured."""
    value: float
    """The run's."""
    controls: Mapping[str, float]
    """What it is compared to."""
    passed: bool | None
    """None: reported only, or outdated."""
    outdated: bool = False
    """Whether it was judged by another rule than today's."""
    gate: str = ""
    """The rules that it is held to, in words."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Two standard errors of the difference to a control."""


class Rule(Protocol):
    """A gate."""

    @property
    def words(self) -> str:
        """The rule in words; empty if nothing is demanded."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows that it compares to."""

    def judge(self, own: Sequence[Measure], others: Others, /) -> list[Line]:
        """Look at one run.

        Raises:
            Unmeasured: something that it reads is missing.
        """


def find(measures: Sequence[Measure], text: str) -> Measure:
    """The one whose name holds these words.

    Raises:
        Unmeasured: none does, or several do.
    """
    (one, *more) = _all(measures, text)
    if more:
        names = ", ".join(repr(each.name) for each in (one, *more))
        raise Unmeasured(f"{text!r} is the name of several measures: {names}")
    return one


def holds(name: str, text: str) -> bool:
    """Whether the words are in it, and a number that ends them whole: R@1 is not in R@10."""
    whole = r"(?!\d)" if text[-1:].isdigit() else ""
    return re.search(re.escape(text) + whole, name) is not None


def _all(measures: Sequence[Measure], text: str) -> list[Measure]:
    found = [one for one in measures if holds(one.name, text)]
    if not found:
        raise Unmeasured(f"no measure {text!r}; there are: {', '.join(m.name for m in measures)}")
    return found


def _control(measure: Measure, name: str) -> float:
    if name not in measure.controls:
        raise Unmeasured(
            f"no control {name!r} of {measure.name!r}; there are: {', '.join(measure.controls)}"
        )
    return measure.controls[name]


@dataclass(frozen=True)
class Own:
    """The verdict that evaluation itself gives, of every measure whose name holds these words.

    A verdict by any other rule than evaluation's of today is none.
    """

    measure: str
    gate: str
    """Today's rule, in evaluation's words."""
    others: tuple[str, ...] = ()
    """Those of further measures whose names hold the words."""
    rows: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """All of them."""
        return "; then ".join((self.gate, *self.others))

    def judge(self, own: Sequence[Measure], _: Others, /) -> list[Line]:
        """As it was said."""
        today = (self.gate, *self.others)
        return [
            Line(m.name, m.value, m.controls, m.passed, errors=m.errors)
            if m.gate in today
            else Line(m.name, m.value, m.controls, None, outdated=True)
            for m in _all(own, self.measure)
        ]


@dataclass(frozen=True)
class Shown:
    """Reported where it was measured, and no verdict on it."""

    measure: str
    words: str = ""
    rows: tuple[str, ...] = ()

    def judge(self, own: Sequence[Measure], _: Others, /) -> list[Line]:
        """As it was measured; nothing if it was not."""
        return [
            Line(m.name, m.value, m.controls, None, errors=m.errors)
            for m in own
            if holds(m.name, self.measure)
        ]


@dataclass(frozen=True)
class Times:
    """So many times a control, or more."""

    measure: str
    control: str
    factor: float
    rows: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """It in words."""
        return f"≥ {self.factor:g} × {self.control}"

    def judge(self, own: Sequence[Measure], _: Others, /) -> list[Line]:
        """One line."""
        found = find(own, self.measure)
        good = found.value >= self.factor * _control(found, self.control)
        return [Line(found.name, found.value, found.controls, good)]


@dataclass(frozen=True)
class Above:
    """Above controls by so much, or by one percent; every measure whose name holds the words."""

    measure: str
    controls: tuple[str, ...]
    by: float = 0.0
    rows: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """It in words."""
        over = " and ".join(self.controls)
        return f"≥ {over} + {self.by:g}" if self.by else f"above {over} by ≥ {MARGIN:.0%}"

    def judge(self, own: Sequence[Measure], _: Others, /) -> list[Line]:
        """A line for each."""
        lines = []
        for found in _all(own, self.measure):
            best = max(_control(found, name) for name in self.controls)
            if self.by:
                good = found.value >= best + self.by
            else:
                good = found.value > best and found.value >= best * (1 + MARGIN)
            lines.append(Line(found.name, found.value, found.controls, good))
        return lines


@dataclass(frozen=True)
class Beyond:
    """Better than controls by two standard errors; every measure whose name holds the words.

    Errors are of the paired difference, those of one episode varying together, as evaluation has
    them.
    """

    measure: str
    controls: tuple[str, ...]
    falls: bool = False
    """Whether less is better."""
    rows: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """It in words."""
        over = " and ".join(self.controls)
        each = ", each " if len(self.controls) > 1 else " "
        return f"{'below' if self.falls else 'above'} {over}{each}{BEYOND}"

    def judge(self, own: Sequence[Measure], _: Others, /) -> list[Line]:
        """A line for each."""
        lines = []
        for found in _all(own, self.measure):
            if not found.errors.keys() >= set(self.controls):
                lines.append(Line(found.name, found.value, found.controls, None, outdated=True))
                continue
            sign = -1 if self.falls else 1
            gains = {n: sign * (found.value - _control(found, n)) for n in self.controls}
            good = beyond(gains, found.errors)
            lines.append(Line(found.name, found.value, found.controls, good, errors=found.errors))
        return lines


@dataclass(frozen=True)
class Rising:
    """From each measure of these names to the next the number rises."""

    measures: tuple[str, ...]
    words: str
    rows: tuple[str, ...] = ()

    def judge(self, own: Sequence[Measure], _: Others, /) -> list[Line]:
        """A line for each; the first one cannot fail."""
        found = [find(own, name) for name in self.measures]
        before = [-float("inf"), *(one.value for one in found)]
        return [
            Line(one.name, one.value, one.controls, one.value > least)
            for one, least in zip(found, before, strict=False)
        ]


@dataclass(frozen=True)
class Beside:
    """At least a share of what another row has on the same measure: means over the same seeds.

    By one seed alone it is told and not judged: what another draw of everything changes is more
    than the share leaves room for.
    """

    measure: str
    row: str
    share: float

    @property
    def words(self) -> str:
        """It in words."""
        return f"≥ {self.share:g} × {self.row}'s, in the mean of the seeds"

    @property
    def rows(self) -> tuple[str, ...]:
        """The other one."""
        return (self.row,)

    def judge(self, own: Sequence[Measure], others: Others, /) -> list[Line]:
        """One line, the other row among its controls."""
        found, other = find(own, self.measure), find(others[self.row], self.measure)
        controls = {f"{self.row}'s": other.value, **found.controls}
        return [Line(found.name, found.value, controls, None, errors=found.errors)]

    def holds(self, lines: Sequence[Line]) -> bool:
        """By the lines of all seeds."""
        theirs = mean(line.controls[f"{self.row}'s"] for line in lines)
        return mean(line.value for line in lines) >= self.share * theirs


@dataclass(frozen=True)
class Task:
    """One of several tasks: its metric, and the row in which it was learnt alone."""

    measure: str
    row: str
    rises: bool = False
    """Whether more is better; else it is an error."""

    def gain(self, found: Measure, other: Measure) -> float:
        """How much better one is than another, of the other."""
        more = (found.value - other.value) / max(abs(other.value), _LEAST)
        return more if self.rises else -more


@dataclass(frozen=True)
class Kept:
    """What learning together costs or gives: Δm, the mean over tasks of the relative gain.

    Source: Maninis et al. 2019 (arXiv:1904.08918), equation 3.
    """

    tasks: tuple[Task, ...]
    least: float = 0.0
    worst: float = -0.10
    """Relative gain that no task may fall below: a mean says nothing of one that is given up."""

    @property
    def words(self) -> str:
        """It in words."""
        return (
            f"Δm ≥ {self.least:g}: over tasks, on average no worse than each alone at as many "
            f"floating-point operations; and none worse by more than {-self.worst:.0%}"
        )

    @property
    def rows(self) -> tuple[str, ...]:
        """Each task's."""
        return tuple(task.row for task in self.tasks)

    def judge(self, own: Sequence[Measure], others: Others, /) -> list[Line]:
        """Δm, then each task beside its run alone."""
        gains, lines = [], list[Line]()
        for task in self.tasks:
            found, alone = find(own, task.measure), find(others[task.row], task.measure)
            gains.append(task.gain(found, alone))
            controls = {"alone": alone.value, "relative gain": gains[-1]}
            lines.append(Line(found.name, found.value, controls, gains[-1] >= self.worst))
        total = mean(gains)
        return [Line("Δm", total, {}, total >= self.least), *lines]


@dataclass(frozen=True)
class Divided:
    """Beside one run of each task alone that share the operations of the mix; no verdict on it.

    What a team asks that has so much to spend and wants one model or several.
    """

    tasks: tuple[Task, ...]
    """Each with the row of its share."""
    words: str = ""

    @property
    def rows(self) -> tuple[str, ...]:
        """Each task's."""
        return tuple(task.row for task in self.tasks)

    def judge(self, own: Sequence[Measure], others: Others, /) -> list[Line]:
        """Δm, then each task's share among its controls."""
        count, gains, lines = len(self.tasks), [], list[Line]()
        for task in self.tasks:
            found, alone = find(own, task.measure), find(others[task.row], task.measure)
            gains.append(task.gain(found, alone))
            controls = {f"alone for 1/{count} of it": alone.value}
            lines.append(Line(found.name, found.value, controls, None))
        name = f"Δm beside {count} models of one task each that share the operations"
        return [Line(name, mean(gains), {}, None), *lines]
