"""Verdicts on rows: every rule over every seed that was run, and what is missing for a verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from gates_rows import CEILING, TRUNK, Row
from gates_rules import Beside, Line, Unmeasured, holds
from gates_run import Found
from tectum_train.evaluation.measuring.probes import EDITION

__all__ = ["SEEDS", "Judged", "Results", "judge", "judged", "runs_of"]

SEEDS = (0, 1, 2)
Results = Mapping[tuple[str, int], Found]
"""Finished runs by row and seed."""
_PROBED = re.compile(r"^frozen|→ (hand|same motion)")
"""Names of what a linear probe tells."""


@dataclass(frozen=True)
class Judged:
    """One row's lines by seed, each number once, and what is missing for a verdict."""

    lines: dict[int, list[Line]]
    waits: str = ""


def judged(row: Row, results: Results) -> str:
    """PASS, FAIL, or what is missing for a verdict."""
    runs, found = runs_of(row, results), judge(row, results)
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


def runs_of(row: Row, results: Results) -> list[Found]:
    """Those that there are, by seed."""
    return [results[row.name, seed] for seed in SEEDS if (row.name, seed) in results]


def judge(row: Row, results: Results) -> Judged:
    """Every gate over every seed that there is; the first thing that is missing for a verdict."""
    found, waits, held_to = dict[int, list[Line]](), list[str](), dict[tuple[str, str], Set[str]]()
    for run in runs_of(row, results):
        others = {
            name: other
            for rule in row.rules
            for name in rule.rows
            if (other := results.get((name, run.seed))) and other.judged == run.judged
        }
        measures = {name: other.measures for name, other in others.items()}
        if not run.judged:
            waits.append(f"to be measured on the judged episodes: seed {run.seed}")
        lines, ceiling = list[Line](), results.get((CEILING, run.seed))
        for rule in row.rules:
            if missing := [name for name in rule.rows if name not in others]:
                if rule.words:  # else it is only shown beside them
                    waits.append(f"waits for {', '.join(missing)}, seed {run.seed}")
                continue
            editions = {run.probes, *(others[name].probes for name in rule.rows)}
            if len(editions) > 1 and not rule.words:  # only shown beside them
                continue
            older = len(editions) > 1 if rule.rows else run.probes != EDITION
            try:
                lines += [
                    _otherwise(replace(line, gate="" if line.passed is None else rule.words), older)
                    for line in rule.judge(run.measures, measures)
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
    return Judged(found, waits[0] if waits else "")


def _otherwise(line: Line, older: bool) -> Line:
    """Without its verdict, if older probes told it, or other ones than what it is held to."""
    if not (older and _PROBED.search(line.what)):
        return line
    return replace(line, passed=None, gate="", outdated=True)


def _judge_together(rule: Beside, found: dict[int, list[Line]]) -> None:
    """Write into each seed's line the verdict by the means of all, once all are there."""
    own = {
        seed: line
        for seed, lines in found.items()
        for line in lines
        if holds(line.what, rule.measure) and f"{rule.row}'s" in line.controls
    }
    if not own:
        return
    good = rule.holds(list(own.values())) if len(own) == len(SEEDS) else None
    for seed, line in own.items():
        gate = "; ".join(part for part in (line.gate, rule.words) if part)
        passed = line.passed if good is None else good and line.passed is not False
        judged = replace(line, passed=passed, gate=gate)
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
    """With what labels teach a trunk to tell among the controls, if it was asked the same."""
    if ceiling is None or run.row == CEILING or not line.what.startswith(TRUNK):
        return line
    if (ceiling.probes, ceiling.judged) != (run.probes, run.judged):
        return line
    same = {one.name: one.value for one in ceiling.measures}
    told = {f"{CEILING}'s": same[line.what]} if line.what in same else {}
    return replace(line, controls={**line.controls, **told})
