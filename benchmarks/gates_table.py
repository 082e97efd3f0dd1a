"""The table of gates, from what the runs have left: pure functions of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from gates_compared import Cost, compared, spread
from gates_planning import AFTER, Planned, planned_line, planned_section
from gates_planning import NAME as PLANNING
from gates_rows import CEILING, Row
from gates_rules import Line, Shown, holds
from gates_run import Found
from gates_verdicts import SEEDS, Results, judge, judged, runs_of

__all__ = ["numbers", "table"]

_RULE = (
    f"Each row is {len(SEEDS)} runs of a recipe, seeds {', '.join(map(str, SEEDS))}; PASS: in "
    "every one of them every gate of the row holds. Behind a number stands what it is held to. "
    "Numbers are means over the runs there are, ± the standard deviation. FAIL, with fewer runs: "
    "one gate does not hold, so it cannot pass. ✗: a gate on this number does not hold, in so many "
    "of the runs. †: a gate is not in every way what OBJECTIVES.md's words are; the row's page, "
    "behind its name, says where and why. To be measured again (`make gates REMEASURE=1`) is what "
    "was judged by another rule than today's, or by other probes of frozen features. A run is "
    "another one if its recipe, data or trunk is; code that has changed since makes none, and each "
    "page names the commits.\n\n"
    "Measured by the last checkpoint on episodes of their own (`make judged`), twice as many as "
    "recipes are chosen on, in looks that no other episode has. Their places and sentences no "
    "training episode has; those are the ones that recipes are chosen on, too. No setting was "
    "chosen on the judged episodes. But where a recipe failed on them, other settings were tried "
    "on the others, and what was best there was judged anew: how often, and what, the row's page "
    "says under *tried*. Two standard errors (2 SE) are of the paired difference to a control, "
    "what is of one episode varying together. What another draw of random weights or of the few "
    "labels would change they do not hold; each seed has draws of its own.\n\n"
    "A page has a row's controls, on how much each number was measured, and of a frozen trunk, "
    f"where it was trained, what the one of `{CEILING}` has with the same seed. Minutes are of "
    "training, then of evaluation where it was timed: on the wall, beside whatever else the "
    "machine did, and of its processors.\n\n"
    "Words: *trunk*, the vision transformer as training has left it, *frozen*, for nothing of it "
    "is changed when it is asked; *neighbours*, a frame's task by the most like frames of labelled "
    "episodes; *spread*, how far a trunk's vectors lie from their mean, 0 if all pictures look "
    "alike to it; *R@1*, how often the first answer is right; *nats*, surprise, by natural "
    "logarithms; *twin*, the same network with random weights; *Δm*, over the tasks of a mix the "
    "mean relative gain on each learnt alone."
)


@dataclass(frozen=True)
class _Told:
    """One number of a row over its seeds."""

    what: str
    value: str
    controls: str
    gate: str
    """What it is held to, in words; empty: nothing."""
    on: str = ""
    """How much it was measured on."""
    failed: str = ""
    """In how many of the runs that does not hold; empty: in none."""

    @property
    def measured(self) -> str:
        """What, and on how much."""
        return f"{self.what} ({self.on})" if self.on else self.what


def table(
    rows: Sequence[Row],
    results: Results,
    planned: Planned | None = None,
    now: str | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> str:
    """The report's body: rows with gates, the others, then contrastive against masked.

    Args:
        rows: in the table's order.
        results: what there is.
        planned: what planning over a world model came to, if it was tried.
        now: identity that the training of planning's bundle would have by recipe and data as they
            are; None: it is not asked.
        costs: what samples cost, by row.
    """
    lines = [
        _RULE + "\n",
        "| row | found: what it is held to | verdict |",
        "| --- | --- | --- |",
    ]
    for row in rows:
        if _gated(row):
            lines.append(_line(row, results))
        if row.name == AFTER:
            lines.append(planned_line(planned, now))
    lines += ["", *_others(rows, results), *compared(rows, results, costs or {})]
    return "\n".join(lines) + "\n"


def numbers(
    rows: Sequence[Row], results: Results, planned: Planned | None = None
) -> dict[str, str]:
    """All that there is to say of each row that was run, by its name; arguments as `table`'s."""
    told = {row.name: _section(row, _told(row, results), results) for row in rows}
    if any(row.name == AFTER for row in rows):
        told[PLANNING] = planned_section(planned)
    return {name: "\n".join(lines) for name, lines in told.items() if lines}


def _gated(row: Row) -> bool:
    return any(rule.words for rule in row.rules)


def _line(row: Row, results: Results) -> str:
    """A row of the table; of one that was not run, what it will be held to."""
    told = _told(row, results)
    found = [f"{one.what} {one.value}{one.failed}: {one.gate}" for one in told if one.gate]
    words = found or list(dict.fromkeys(rule.words for rule in row.rules if rule.words))
    noted = " †" if row.note else ""
    return f"| {_name(row, results)}{noted} | {'<br>'.join(words)} | {judged(row, results)} |"


def _name(row: Row, results: Results) -> str:
    return f"[{row.name}](gates/{row.name}.md)" if runs_of(row, results) else row.name


def _others(rows: Sequence[Row], results: Results) -> Iterator[str]:
    """Rows that nothing is demanded of."""
    told = [f"{_name(row, results)} ({judged(row, results)})" for row in rows if not _gated(row)]
    if told:
        yield f"Without a gate, for others to be held to or compared with: {', '.join(told)}.\n"


def _section(row: Row, told: Sequence[_Told], results: Results) -> list[str]:
    """All that there is to say of a row, under its name; nothing of one that was not run."""
    if not told:
        return []
    changes, runs = "".join(f", `{change}`" for change in row.changes), runs_of(row, results)
    return [
        f"# {row.name}\n",
        f"`{row.recipe}`{changes}; {_minutes(runs)}. {_when(runs)}.\n",
        *([f"† {row.note}.\n"] if row.note else []),
        *([f"*Tried*: {row.tried}.\n"] if row.tried else []),
        "| measured | found | beside | gate |",
        "| --- | --- | --- | --- |",
        *(
            f"| {one.measured} | {one.value}{one.failed} | {one.controls} | {one.gate} |"
            for one in told
        ),
        "",
    ]


def _told(row: Row, results: Results) -> list[_Told]:
    """Every number, mean ± spread over the seeds that have it, with its controls."""
    told, by_what = list[_Told](), dict[str, list[Line]]()
    for of_seed in judge(row, results).lines.values():
        for line in of_seed:
            by_what.setdefault(line.what, []).append(line)
    amounts = _amounts(runs_of(row, results))
    for what, same in by_what.items():
        names = dict.fromkeys(name for line in same for name in line.controls)
        each = {name: [o.controls[name] for o in same if name in o.controls] for name in names}
        failed = sum(line.passed is False for line in same)
        told.append(
            _Told(
                what,
                f"**{spread([line.value for line in same])}**",
                "; ".join(_control(name, values, same) for name, values in each.items()),
                same[-1].gate,
                amounts.get(what, ""),
                f" ✗ {failed} of {len(same)}" if failed else "",
            )
        )
    missing = [
        rule.measure.strip(", ")
        for rule in row.rules
        if isinstance(rule, Shown) and not any(holds(what, rule.measure) for what in by_what)
    ]
    return told + [_Told(name, "not measured", "", "") for name in missing if by_what]


def _amounts(runs: Sequence[Found]) -> dict[str, str]:
    """How much each number was measured on, where the last run says it."""
    return {one.name: one.on for one in (runs[-1].measures if runs else ())}


def _control(name: str, values: Sequence[float], lines: Sequence[Line]) -> str:
    """A control's mean over the seeds, and how far from it chance alone may be."""
    errors = [line.errors[name] for line in lines if name in line.errors]
    apart = f" (2 SE {mean(errors):.3f})" if errors else ""
    return f"{name} {spread(values)}{apart}"


def _minutes(runs: Sequence[Found]) -> str:
    """Of training, and of evaluation as far as it was timed."""
    trained = _wall_and_busy([(run.wall_seconds, run.cpu_seconds) for run in runs])
    timed = [run.evaluated_in for run in runs if run.evaluated_in is not None]
    evaluated = f", evaluation {_wall_and_busy(timed)}" if timed else ""
    return f"minutes: training {trained}{evaluated}"


def _when(runs: Sequence[Found]) -> str:
    """By which code, on which day, each seed."""
    return "; ".join(
        f"seed {run.seed}: trained by {run.commits}, measured by {run.measured_by} on "
        f"{run.date}, {run.threads} threads"
        for run in runs
    )


def _wall_and_busy(seconds: Sequence[Sequence[float]]) -> str:
    wall, busy = (spread([both[i] / 60 for both in seconds], 1) for i in range(2))
    return f"{wall} (processors {busy})"
