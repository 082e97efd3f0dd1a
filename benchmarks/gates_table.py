"""The table of gates, from what the runs have left: pure functions of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from statistics import mean, stdev

from gates_planning import AFTER, Planned, planned_line, planned_section
from gates_planning import NAME as PLANNING
from gates_rows import CEILING, LINEAR, NEIGHBOURS, TRUNK, Row
from gates_rules import Beside, Line, Shown, Unmeasured, find, holds
from gates_run import Found
from tectum_train.evaluation.measuring.probes import EDITION

__all__ = ["SEEDS", "Results", "compared", "judged", "numbers", "table"]

SEEDS = (0, 1, 2)
Results = Mapping[tuple[str, int], Found]
"""Finished runs by row and seed."""

_RULE = (
    f"Each row is {len(SEEDS)} runs of a recipe, seeds {', '.join(map(str, SEEDS))}; PASS: in "
    "every one of them every gate of the row holds. Numbers are means over the runs there are, ± "
    "the standard deviation. FAIL, with fewer runs: one gate does not hold, so it cannot pass. "
    "✗: a gate on this number does not hold, in so many of the runs. To "
    "be measured again (`make gates REMEASURE=1`) is what was judged by another rule than today's, "
    "or by other probes of frozen features. "
    "A run is another one if its recipe, data or trunk is; code that has changed since makes none, "
    "and the commits are named above. "
    "Measured by the last checkpoint on episodes of their own (`make judged`), on which nothing "
    "was chosen: places, sentences and looks that no training episode has, twice as many as "
    "recipes were tried on. Two standard errors (2 SE) are of the paired difference to a control, "
    "what is of one episode varying together.\n\n"
    "What each number stands beside, and what else was measured, is behind the row's name: the "
    "controls, and of a frozen trunk, where it was trained, what the one of "
    f"`{CEILING}` has with the same seed. What is in italics there says where a gate is not what "
    "OBJECTIVES.md's words are, and why. Minutes are of training, then of evaluation where it was "
    "timed: on the wall, beside whatever else the machine did, and of its processors."
)


@dataclass(frozen=True)
class _Told:
    """One number of a row over its seeds."""

    what: str
    value: str
    controls: str
    gate: str
    """What it is held to, in words; empty: nothing."""
    failed: str = ""
    """In how many of the runs that does not hold; empty: in none."""


@dataclass(frozen=True)
class _Judged:
    """One row's lines by seed, each number once, and what is missing for a verdict."""

    lines: dict[int, list[Line]]
    waits: str = ""


def table(
    rows: Sequence[Row], results: Results, planned: Planned | None = None, now: str | None = None
) -> str:
    """The report's body: every row, then contrastive against masked.

    Args:
        rows: in the table's order.
        results: what there is.
        planned: what planning over a world model came to, if it was tried.
        now: identity that the training of planning's bundle would have by recipe and data as they
            are; None: it is not asked.
    """
    lines = [
        _RULE + "\n",
        "| row | gate | found | verdict |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        told = _told(row, results)
        gated = "<br>".join(f"{one.what}: {one.value}{one.failed}" for one in told if one.gate)
        name = f"[{row.name}](gates/{row.name}.md)" if told else row.name
        lines.append(f"| {name} | {_gates(row)} | {gated} | {judged(row, results)} |")
        if row.name == AFTER:
            lines.append(planned_line(planned, now))
    return "\n".join([*lines, "", *compared(rows, results)]) + "\n"


def numbers(
    rows: Sequence[Row], results: Results, planned: Planned | None = None
) -> dict[str, str]:
    """All that there is to say of each row that was run, by its name; arguments as `table`'s."""
    told = {row.name: _section(row, _told(row, results), results) for row in rows}
    if any(row.name == AFTER for row in rows):
        told[PLANNING] = planned_section(planned)
    return {name: "\n".join(lines) for name, lines in told.items() if lines}


def judged(row: Row, results: Results) -> str:
    """PASS, FAIL, or what is missing for a verdict."""
    runs, found = _runs(row, results), _judge(row, results)
    if found.waits and runs:
        return found.waits
    failed = sum(any(line.passed is False for line in each) for each in found.lines.values())
    if failed and len(runs) < len(SEEDS):
        return f"FAIL ({failed} of {len(runs)} run)" + _tried(row)
    if len(runs) < len(SEEDS):
        return f"{len(runs)} of {len(SEEDS)} seeds" if runs else "not run"
    verdicts = [
        {line.what: line.passed for line in of_seed if line.passed is not None}
        for of_seed in found.lines.values()
    ]
    if not any(verdicts):
        return "reported"
    if any(each.keys() != verdicts[0].keys() for each in verdicts):
        return "not the same gates in every seed"
    good = sum(all(each.values()) for each in verdicts)
    if good == len(runs):
        return "PASS"
    return f"FAIL ({good} of {len(runs)} pass)" + _tried(row)


def _tried(row: Row) -> str:
    return f"; tried: {row.tried}" if row.tried else ""


def compared(rows: Sequence[Row], results: Results) -> list[str]:
    """Lines of the closing table: what a picture and a second of processor time give."""
    lines = []
    for row in rows:
        runs = _runs(row, results)
        try:
            probes = [[find(run.measures, name) for name in (NEIGHBOURS, LINEAR)] for run in runs]
        except Unmeasured:
            continue
        if not row.family or not runs or any(run.probes != EDITION for run in runs):
            continue
        shares = [_spread([both[i].value for both in probes]) for i in range(2)]
        gains = [
            60 * (both[1].value - both[1].controls["random init"]) * 100 / run.cpu_seconds
            for run, both in zip(runs, probes, strict=True)
        ]
        pictures = runs[0].steps * runs[0].batch_size
        rate = _spread([pictures / run.wall_seconds for run in runs], 0)
        busy = _spread([pictures / run.cpu_seconds for run in runs], 0)
        cells = (row.name, row.family, f"{pictures:,}", rate, busy, *shares, _spread(gains, 1))
        lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return []
    return [
        "## Contrastive against masked\n",
        "What the frozen trunk tells of a frame's task, and for how much: samples seen, samples a "
        "second on the wall and of processor time, and by how many points a minute of processor "
        "time raised the linear probe above random weights. All rows here have one trunk, a plain "
        "transformer: clip-plain and simclr-plain are clip and simclr without convolutions. Rows "
        "that are to be measured again are left out.\n",
        "| row | family | samples | a second | a processor second | neighbours | linear probe | "
        "points a processor minute |",
        "| --- |" + " --- |" * 7,
        *lines,
        "",
    ]


def _runs(row: Row, results: Results) -> list[Found]:
    return [results[row.name, seed] for seed in SEEDS if (row.name, seed) in results]


def _judge(row: Row, results: Results) -> _Judged:
    """Every gate over every seed that there is; the first thing that is missing for a verdict."""
    found, waits, held_to = dict[int, list[Line]](), list[str](), dict[tuple[str, str], Set[str]]()
    for run in _runs(row, results):
        others = {
            name: results[name, run.seed].measures
            for rule in row.rules
            for name in rule.rows
            if (name, run.seed) in results
        }
        if not run.judged:
            waits.append(f"to be measured on the judged episodes: seed {run.seed}")
        lines, ceiling = list[Line](), results.get((CEILING, run.seed))
        for rule in row.rules:
            if missing := [name for name in rule.rows if name not in others]:
                if rule.words:  # else it is only shown beside them
                    waits.append(f"waits for {', '.join(missing)}, seed {run.seed}")
                continue
            try:
                asked = [run, *(results[name, run.seed] for name in rule.rows)]
                lines += [
                    _otherwise(replace(line, gate="" if line.passed is None else rule.words), asked)
                    for line in rule.judge(run.measures, others)
                ]
            except Unmeasured as why:
                waits.append(f"not measured: {why}")
        waits += [_again(line.what, run.seed) for line in lines if line.outdated]
        for line in (one for one in lines if one.passed is not None):
            gated = line.what, line.gate
            if line.controls.keys() != held_to.setdefault(gated, line.controls.keys()):
                waits.append(_again(line.what, run.seed))
        found[run.seed] = [_beside(line, run, ceiling) for line in _once(lines)]
    for rule in row.rules:
        if isinstance(rule, Beside):
            _judge_together(rule, found)
    return _Judged(found, waits[0] if waits else "")


def _otherwise(line: Line, runs: Sequence[Found]) -> Line:
    """Without its verdict, if frozen features were asked otherwise in one of these runs."""
    older = any(run.probes != EDITION for run in runs)
    if not (older and line.what.startswith("frozen")):
        return line
    return replace(line, passed=None, gate="", outdated=True)


def _judge_together(rule: Beside, found: dict[int, list[Line]]) -> None:
    """Write into each seed's line the verdict by the means of all."""
    own = {
        seed: line
        for seed, lines in found.items()
        for line in lines
        if holds(line.what, rule.measure) and f"{rule.row}'s" in line.controls
    }
    if not own:
        return
    good = rule.holds(list(own.values()))
    for seed, line in own.items():
        gate = "; ".join(part for part in (line.gate, rule.words) if part)
        judged = replace(line, passed=good and line.passed is not False, gate=gate)
        found[seed] = [judged if one is line else one for one in found[seed]]


def _again(what: str, seed: int) -> str:
    return f"to be measured again: {what}, seed {seed}, was judged otherwise"


def _once(lines: Sequence[Line]) -> list[Line]:
    """Each number once, with all that it is compared to; it passes if every gate on it does."""
    merged = dict[str, Line]()
    for line in lines:
        first = merged.setdefault(line.what, line)
        verdicts = [one.passed for one in (first, line) if one.passed is not None]
        merged[line.what] = replace(
            first,
            controls={**line.controls, **first.controls},
            errors={**line.errors, **first.errors},
            passed=all(verdicts) if verdicts else None,
            gate="; ".join(dict.fromkeys(one.gate for one in (first, line) if one.gate)),
        )
    return list(merged.values())


def _beside(line: Line, run: Found, ceiling: Found | None) -> Line:
    """With the ceiling's number among the controls: what labels teach a trunk to tell."""
    same_probes = ceiling is not None and ceiling.probes == run.probes
    if ceiling is None or not same_probes or run.row == CEILING or not line.what.startswith(TRUNK):
        return line
    same = {one.name: one.value for one in ceiling.measures}
    told = {f"{CEILING}'s": same[line.what]} if line.what in same else {}
    return replace(line, controls={**line.controls, **told})


def _gates(row: Row) -> str:
    """What is demanded, in words."""
    return "<br>".join(dict.fromkeys(rule.words for rule in row.rules if rule.words))


def _section(row: Row, told: Sequence[_Told], results: Results) -> list[str]:
    """All that there is to say of a row, under its name; nothing of one that was not run."""
    if not told:
        return []
    changes, runs = "".join(f", `{change}`" for change in row.changes), _runs(row, results)
    return [
        f"# {row.name}\n",
        f"`{row.recipe}`{changes}; {_minutes(runs)}. {_when(runs)}.\n",
        *([f"*{row.note}*\n"] if row.note else []),
        "| measured | found | beside | gate |",
        "| --- | --- | --- | --- |",
        *(
            f"| {' | '.join((one.what, one.value + one.failed, one.controls, one.gate))} |"
            for one in told
        ),
        "",
    ]


def _told(row: Row, results: Results) -> list[_Told]:
    """Every number, mean ± spread over the seeds that have it, with its controls."""
    told, by_what = list[_Told](), dict[str, list[Line]]()
    for of_seed in _judge(row, results).lines.values():
        for line in of_seed:
            by_what.setdefault(line.what, []).append(line)
    for what, same in by_what.items():
        names = dict.fromkeys(name for line in same for name in line.controls)
        each = {name: [o.controls[name] for o in same if name in o.controls] for name in names}
        failed = sum(line.passed is False for line in same)
        told.append(
            _Told(
                what,
                f"**{_spread([line.value for line in same])}**",
                "; ".join(_control(name, values, same) for name, values in each.items()),
                same[-1].gate,
                f" ✗ {failed} of {len(same)}" if failed else "",
            )
        )
    missing = [
        rule.measure.strip(", ")
        for rule in row.rules
        if isinstance(rule, Shown) and not any(holds(what, rule.measure) for what in by_what)
    ]
    return told + [_Told(name, "not measured", "", "") for name in missing if by_what]


def _control(name: str, values: Sequence[float], lines: Sequence[Line]) -> str:
    """A control's mean over the seeds, and how far from it chance alone may be."""
    errors = [line.errors[name] for line in lines if name in line.errors]
    apart = f" (2 SE {mean(errors):.3f})" if errors else ""
    return f"{name} {_spread(values)}{apart}"


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
    wall, busy = (_spread([both[i] / 60 for both in seconds], 1) for i in range(2))
    return f"{wall} (processors {busy})"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"
