"""How long the small recipes take here: some steps of each, and what the rest would take.

A run's first steps are left out, in which memory is found and nothing is warm; what is measured
after training (`gates`' tables have it) and decoding, once a data set, is not in it. Of the rows
that objectives.md compares by what they cost it tells floating-point operations a sample, too. For
a machine that does nothing else. Needs `make world wandering`, and for `beit-small` a run of
image-tokenizer-small (`make gates ROW=image-tokenizer SEED=0`). Writes
benchmarks/results/minutes.md.

    python benchmarks/minutes.py [--steps 60]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from gates_rows import ROWS, Row
from gates_run import Places, recipe_of
from machine import heading
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import build, open_samples
from tectum_train.engine.progress import say
from tectum_train.engine.run import train
from tectum_train.recipe import Recipe, read_recipe
from training_gpu import arithmetic

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


@dataclass(frozen=True)
class Cost:
    """What a sample of one row costs."""

    row: str
    rate: float
    """Samples a second."""
    gflop: float
    """10⁹ floating-point operations, forwards and backwards."""


def cost(row: Row, steps: int, folder: Path, console: Console) -> Cost:
    """Take so many steps of a row, and count the operations of one.

    Raises:
        ValueError: its data are not there.
    """
    recipe = recipe_of(row, 0, Places())
    one = taken(recipe, steps, folder / "steps", console)
    samples = open_samples(recipe, "train", lambda *_: None)
    run = build(recipe, samples, folder)
    maker = BatchMaker(recipe, samples, run.tokenizer, run.scaling, torch.device("cpu"))
    counted = arithmetic(recipe, maker.make(0), run.objective)
    return Cost(row.name, one.batch * one.steps / one.minutes / 60, counted / 1e9)


def costs(found: Sequence[Cost]) -> str:
    """Below the table, what `gates_compared` reads."""
    lines = [
        "\nWhat samples of the rows cost that objectives.md compares.\n",
        "| row | samples a second | 10⁹ operations a sample |",
        "| --- | --- | --- |",
        *(f"| {one.row} | {one.rate:.0f} | {one.gflop:.3f} |" for one in found),
    ]
    return "\n".join(lines) + "\n" if found else ""


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
    console, found, compared = Console(stderr=True), list[Taken](), list[Cost]()

    def keep() -> None:  # an interrupt loses no more than what it came in
        text = f"{heading('Minutes of the small recipes')}\n{table(found)}{costs(compared)}"
        RESULTS.write_text(text, encoding="utf-8")

    for recipe in recipes():
        with tempfile.TemporaryDirectory() as folder, told(recipe.name, console):
            found.append(taken(recipe, given.steps, Path(folder), console))
            say(console, f"{recipe.name}: {found[-1].minutes:.1f} minutes")
            keep()
    for row in (one for one in ROWS if one.family):
        with tempfile.TemporaryDirectory() as folder, told(row.name, console):
            compared.append(cost(row, given.steps, Path(folder), console))
            keep()
    print(RESULTS.read_text(encoding="utf-8"))


@contextmanager
def told(name: str, console: Console) -> Iterator[None]:
    """What cannot be measured is left out, and why is said."""
    try:
        yield
    except ValueError as error:
        say(console, f"{name} is left out: {error}")


if __name__ == "__main__":
    main()
