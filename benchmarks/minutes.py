"""How long the small recipes take here: some steps of each, and what the rest would take.

A run's first steps are left out, in which memory is found and nothing is warm; what is measured
after training (`gates`' tables have it) and decoding, once a data set, is not in it. For a machine
that does nothing else. Needs `make world wandering`, and for `beit-small` a run of
image-tokenizer-small (`make gates ROW=image-tokenizer SEED=0`). Writes
benchmarks/results/minutes.md.

    python benchmarks/minutes.py [--steps 60]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from gates_rows import ROWS
from gates_run import Places, recipe_of
from machine import heading
from tectum_train.engine.progress import say
from tectum_train.engine.run import train
from tectum_train.recipe import Recipe, read_recipe

RESULTS = Path(__file__).parent / "results" / "minutes.md"
LEFT_OUT = 20
"""Steps at the beginning; rates are recorded as often."""


@dataclass(frozen=True)
class Taken:
    """What steps of one recipe took."""

    recipe: str
    steps: int
    """Of the whole run."""
    batch: int
    rates: Sequence[float]
    """Samples a second, of twenty steps each."""

    @property
    def minutes(self) -> float:
        """Of the whole run, at the mean time a step."""
        seconds = sum(self.batch / rate for rate in self.rates) / len(self.rates)
        return self.steps * seconds / 60


def recipes() -> Iterator[Recipe]:
    """All that are for two cores, as their gates run them."""
    for row in ROWS:
        if row.recipe == f"{row.name}-small":
            yield recipe_of(row, 0, Places())
    yield read_recipe("tectum-tiny")


def taken(recipe: Recipe, steps: int, folder: Path, console: Console) -> Taken:
    """Take so many steps of it.

    Raises:
        ValueError: its data, or files that it learns from, are not there.
    """
    schedule = recipe.schedule.model_copy(update={"steps": steps + 1})
    short = recipe.model_copy(update={"schedule": schedule, "output": str(folder)})
    train(short, "cpu", console=console)
    lines = (short.folder / "metrics.jsonl").read_text("utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    rates = [one["images_per_second"] for one in told if one["step"] > LEFT_OUT + 1]
    return Taken(recipe.name, recipe.schedule.steps, recipe.schedule.batch_size, rates)


def table(found: Sequence[Taken]) -> str:
    """The report's body."""
    lines = [
        f"{torch.get_num_threads()} threads; training alone, of a run of as many steps.\n",
        "| recipe | steps × samples | samples a second | minutes |",
        "| --- | --- | --- | --- |",
    ]
    for one in found:
        rate = one.steps * one.batch / one.minutes / 60
        size = f"{one.steps:,} × {one.batch}"
        lines.append(f"| `{one.recipe}` | {size} | {rate:.0f} | {one.minutes:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60, help="of each, a multiple of 20 above 20")
    given = parser.parse_args()
    if given.steps <= LEFT_OUT or given.steps % LEFT_OUT:
        parser.error(f"--steps: found {given.steps}; allowed: 40, 60, 80 …")
    console, found = Console(stderr=True), list[Taken]()
    for recipe in recipes():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found.append(taken(recipe, given.steps, Path(folder), console))
            except ValueError as error:
                say(console, f"{recipe.name} is left out: {error}")
                continue
        say(console, f"{recipe.name}: {found[-1].minutes:.1f} minutes")
        report = f"{heading('Minutes of the small recipes')}\n{table(found)}"
        RESULTS.write_text(report, encoding="utf-8")  # an interrupt loses no more than its recipe
    print(table(found))


if __name__ == "__main__":
    main()
