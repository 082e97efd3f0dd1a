"""Whether each objective learns: small recipes, three seeds, by stated rules and beside controls.

    make gates                     what is missing, row by row
    make gates ROW=mae SEED=1      one row, one seed
    make gates ROW=mae             a row's three seeds
    make gates REMEASURE=1         what is finished is measured again, and nothing trained

A run takes minutes; its numbers lie in benchmarks/results/gates, and a finished run whose recipe is
the same is not run again. Ctrl-C saves, and the same command goes on. After each run
benchmarks/results/objectives.md is written anew from all that there are, and each row's numbers
beside its runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gates_compared import read_costs
from gates_planning import Planned, read_planned
from gates_rows import ROWS, Row, named
from gates_run import (
    Places,
    identity_with,
    kept,
    measured,
    measured_again,
    missing_data,
    wanted,
)
from gates_table import numbers, table
from gates_verdicts import SEEDS, Results
from tectum_train.engine.progress import say

REPORT = Path("benchmarks/results/objectives.md")
MINUTES = Path("benchmarks/results/minutes.md")


def report(results: Results, planned: Planned | None = None, now: str | None = None) -> str:
    """The whole file; the arguments are `table`'s."""
    runs = list(results.values())
    dates = sorted({run.date for run in runs})
    machines = sorted({f"{run.machine}; {run.threads} threads" for run in runs})
    heading = (
        f"# Objectives\n\n{' / '.join(machines)}; "
        f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, commits on each row's page. "
        "`make gates`\n"
    )
    return f"{heading}\n{table(ROWS, results, planned, now, read_costs(MINUTES))}"


def gather(places: Places) -> Results:
    """All finished runs."""
    every = ((row, seed, kept(row, seed, places)) for row in ROWS for seed in SEEDS)
    return {(row.name, seed): found for row, seed, found in every if found is not None}


def series(
    rows: Sequence[Row], seeds: Sequence[int], places: Places, file: Path, *, again: bool = False
) -> list[str]:
    """Run what is missing, and write the table after each run.

    Args:
        rows: of the table.
        seeds: of each.
        places: where things lie.
        file: of the table.
        again: measure anew what is finished instead.

    Returns:
        Runs that ended in an error, and in which: the series goes on without them.

    Raises:
        Interrupted: Ctrl-C came.
    """
    console, broken = Console(stderr=True), list[str]()
    for row, seed in ((row, seed) for row in rows for seed in seeds):
        try:
            if again:
                measured_again(row, seed, places, console)
                write(places, file)
                continue
            for one in wanted(row, seed, places):
                measured(one, seed, places, console)
                write(places, file)
        # Hours of other rows shall not be lost to a run that diverges.
        except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            broken.append(f"{row.name}, seed {seed}: {type(error).__name__}: {error}")
            say(console, broken[-1])
    write(places, file)
    return broken


def write(places: Places, file: Path) -> None:
    """The report, and beside the runs each row's numbers, if there is anything to report."""
    if results := gather(places):
        planned, now = read_planned(places.planning), None
        if planned is not None and planned.trained is not None:
            now = identity_with(planned.trained.changes, planned.trained.seed, places)
        told = {
            places.results / f"{name}.md": text
            for name, text in numbers(ROWS, results, planned).items()
        }
        for stale in set(places.results.glob("*.md")) - told.keys():
            stale.unlink(missing_ok=True)  # another worker may have been here
        for path, text in {**told, file: report(results, planned, now)}.items():
            draft = path.with_suffix(".writing")
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", default="", help="one of the rows; all, if empty")
    parser.add_argument("--seed", default="", help="one seed; all, if empty")
    parser.add_argument(
        "--again", action="store_true", help="measure finished runs again, and train none"
    )
    given = parser.parse_args()
    places, console = Places(), Console(stderr=True)
    try:
        rows = [named(given.row)] if given.row else list(ROWS)
        seeds = [int(given.seed)] if given.seed else list(SEEDS)
    except ValueError as error:
        parser.error(str(error))
    if not set(seeds) <= set(SEEDS):
        parser.error(f"--seed: found {given.seed}; allowed: one of {', '.join(map(str, SEEDS))}")
    missing = {row.name: why for row in rows if (why := missing_data(row, places))}
    if len(missing) == len(rows):
        parser.error(next(iter(missing.values())))
    for name, why in missing.items():
        say(console, f"{name} is left out: {why}")
    rows = [row for row in rows if row.name not in missing]
    try:
        broken = series(rows, seeds, places, REPORT, again=given.again)
    except KeyboardInterrupt as error:  # of which Interrupted is one, that says where it saved
        say(console, f"{str(error) or 'interrupted'}; the same command goes on")
        sys.exit(130)
    if broken:
        sys.exit("not measured:\n" + "\n".join(broken))
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
