"""The table of gates, from what the runs have left: pure functions of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from gates_rows import CEILING, LINEAR, NEIGHBOURS, TRUNK, Row
from gates_rules import Line, Unmeasured, find
from gates_run import Found

__all__ = ["SEEDS", "Results", "compared", "judged", "table"]

SEEDS = (0, 1, 2)
Results = Mapping[tuple[str, int], Found]
"""Finished runs by row and seed."""

_RULE = (
    f"Each row is {len(SEEDS)} runs of a recipe, seeds {', '.join(map(str, SEEDS))}; PASS: in "
    "every one of them every gate of the row holds. Numbers are means over the runs there are, ± "
    "the standard deviation; behind each stand its controls, and of a frozen trunk, where it was "
    f"trained, what the one of `{CEILING}` has with the same seed. Minutes are of training: on the "
    "wall, beside whatever else the machine did, and of its processors. Measured by the last "
    "checkpoint on held-out episodes, which are those on which recipes were chosen."
)


@dataclass(frozen=True)
class _Judged:
    """One row's lines by seed, gate after gate, or why there are none."""

    lines: dict[int, list[list[Line]]]
    waits: str = ""


def table(rows: Sequence[Row], results: Results) -> str:
    """The report's body: every row, then contrastive against masked.

    Args:
        rows: in the table's order.
        results: what there is.
    """
    lines = [
        _RULE + "\n",
        "| row | gate | found | minutes | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        runs = _runs(row, results)
        cells = (row.name, _gates(row, results), _found(row, results), _minutes(runs))
        lines.append(f"| {' | '.join(cells)} | {judged(row, results)} |")
    return "\n".join([*lines, "", *compared(rows, results)]) + "\n"


def judged(row: Row, results: Results) -> str:
    """PASS, FAIL, or what is missing for a verdict."""
    runs, found = _runs(row, results), _judge(row, results)
    if found.waits and runs:
        return found.waits
    if len(runs) < len(SEEDS):
        return f"{len(runs)} of {len(SEEDS)} seeds" if runs else "not run"
    verdicts = [
        [line.passed for lines in of_seed for line in lines if line.passed is not None]
        for of_seed in found.lines.values()
    ]
    if not any(verdicts):
        return "reported"
    if len({len(each) for each in verdicts}) > 1:
        return "not the same gates in every seed"
    good = sum(all(each) for each in verdicts)
    if good == len(runs):
        return "PASS"
    return f"FAIL ({good} of {len(runs)} pass)" + (f"; tried: {row.tried}" if row.tried else "")


def compared(rows: Sequence[Row], results: Results) -> list[str]:
    """Lines of the closing table: what a picture and a second of processor time give."""
    lines = []
    for row in rows:
        runs = _runs(row, results)
        try:
            probes = [[find(run.measures, name) for name in (NEIGHBOURS, LINEAR)] for run in runs]
        except Unmeasured:
            continue
        if not row.family or not runs:
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
        "time raised the linear probe above random weights. Trunks differ as their recipes do.\n",
        "| row | family | samples | a second | a processor second | neighbours | linear probe | "
        "points a processor minute |",
        "| --- |" + " --- |" * 7,
        *lines,
    ]


def _runs(row: Row, results: Results) -> list[Found]:
    return [results[row.name, seed] for seed in SEEDS if (row.name, seed) in results]


def _judge(row: Row, results: Results) -> _Judged:
    """Every gate over every seed that there is."""
    found: dict[int, list[list[Line]]] = {}
    for run in _runs(row, results):
        others = {
            name: results[name, run.seed].measures
            for rule in row.rules
            for name in rule.rows
            if (name, run.seed) in results
        }
        found[run.seed] = []
        for rule in row.rules:
            if missing := [name for name in rule.rows if name not in others]:
                return _Judged({}, f"waits for {', '.join(missing)}, seed {run.seed}")
            try:
                lines = rule.judge(run.measures, others)
            except Unmeasured as why:
                return _Judged({}, f"not measured: {why}")
            ceiling = results.get((CEILING, run.seed))
            found[run.seed].append([_beside(line, run, ceiling) for line in lines])
    return _Judged(found)


def _beside(line: Line, run: Found, ceiling: Found | None) -> Line:
    """With the ceiling's number among the controls: what labels teach a trunk to tell."""
    if ceiling is None or run.row == CEILING or not line.what.startswith(TRUNK):
        return line
    same = {one.name: one.value for one in ceiling.measures}
    told = {f"{CEILING}'s": same[line.what]} if line.what in same else {}
    return replace(line, controls={**line.controls, **told})


def _gates(row: Row, results: Results) -> str:
    """What is demanded, in words; where evaluation has the rule, in its words."""
    said = []
    for rule in row.rules:
        own = [
            measure.gate
            for run in _runs(row, results)[:1]
            for measure in run.measures
            if type(rule).__name__ == "Own" and getattr(rule, "measure", "") in measure.name
        ]
        said += [words for words in (rule.words, *own) if words]
    return "<br>".join(dict.fromkeys(said))


def _found(row: Row, results: Results) -> str:
    """Every line, mean ± spread over seeds, with its controls."""
    by_seed = [[line for rule in of for line in rule] for of in _judge(row, results).lines.values()]
    told = []
    for same in zip(*by_seed, strict=False):
        first = same[0]
        names = dict.fromkeys(name for line in same for name in line.controls)
        each = {name: [o.controls[name] for o in same if name in o.controls] for name in names}
        controls = "; ".join(f"{name} {_spread(values)}" for name, values in each.items())
        value = _spread([line.value for line in same])
        told.append(f"{first.what}: **{value}**" + (f" ({controls})" if controls else ""))
    return "<br>".join(told)


def _minutes(runs: Sequence[Found]) -> str:
    if not runs:
        return ""
    wall, busy = (
        _spread([seconds / 60 for seconds in each], 1)
        for each in ([r.wall_seconds for r in runs], [r.cpu_seconds for r in runs])
    )
    return f"{wall} (processors {busy})"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"
