"""One run of one row: trained, measured, and kept as JSON; taken up again where it was left.

What is measured is kept whole and judged later (`gates_table`), so that another rule costs no
training. A run whose recipe has changed since counts as not run.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gates_planning import AFTER
from gates_rows import LABELLED, TAUGHT, Row, named
from machine import commit, machine, today
from tectum_train.data.samples import Samples
from tectum_train.engine.begun import trunk_folder
from tectum_train.engine.building import Run
from tectum_train.engine.checkpoint import CheckpointError
from tectum_train.engine.progress import say
from tectum_train.engine.run import train
from tectum_train.evaluation.latent_action.ceiling import Supervised
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.probes import EDITION
from tectum_train.evaluation.report import as_json
from tectum_train.job import evaluate_run, fitting_splits
from tectum_train.recipe import Recipe, RecipeError, expanded, read_recipe

__all__ = [
    "MADE",
    "WANDERED",
    "Found",
    "Places",
    "identity",
    "identity_with",
    "judged_on",
    "kept",
    "measured",
    "measured_again",
    "missing_data",
    "recipe_of",
    "wanted",
]

WANDERED = {"--wander": "0.8", "--train-episodes-per-task": "120", "--test-episodes-per-task": "4"}
"""How `make wandering` has its episodes made, as the data themselves say it."""
_JUDGED = {"--seed": "2000", "--held-out-look": "", "--train-episodes-per-task": "1"}
MADE = {
    "wandering": WANDERED,
    "judged": {**_JUDGED, "--test-episodes-per-task": "24"},
    "judged-wandering": {**_JUDGED, "--wander": "0.8", "--test-episodes-per-task": "8"},
}
"""The same of every folder whose name is a verb of `make`."""
_DIGITS = 12
_WORDS = {"name", "derived_from", "description", "output", "seed"}


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    results: Path = Path("benchmarks/results/gates")
    """Of finished runs, one JSON each."""
    runs: Path = Path("benchmarks/runs")
    """Of checkpoints."""
    planning: Path = Path("benchmarks/results/planning.json")
    """What benchmarks/planning.py came to."""
    data: Path = Path("data")
    """Of the episodes that rows are judged by."""


@dataclass(frozen=True)
class Found:
    """What a finished run has left."""

    row: str
    seed: int
    recipe: str
    changes: list[str]
    identity: str
    """Of all that the recipe says, changes included."""
    steps: int
    batch_size: int
    wall_seconds: float
    """Of training, all parts of it if it was interrupted; on a machine that may do other work."""
    cpu_seconds: float
    """Likewise, of all threads."""
    threads: int
    machine: str
    commits: str
    """Which trained it."""
    measured_by: str
    """Commit that measured it."""
    date: str
    measures: list[Measure]
    evaluated_in: tuple[float, float] | None = None
    """Seconds that measuring took, on the wall and of all threads; None: it was not timed."""
    judged: str = ""
    """A digest of what the episodes say of themselves that it was measured on; empty: on those on
    which recipes were chosen."""
    probes: int = 1
    """Edition of what frozen features were asked with."""


def identity(recipe: Recipe) -> str:
    """A digest of what the recipe and its changes say, but for words, places and the seed.

    Of what is said only: a setting that a later version adds, with a default, makes no other run.
    Data count by what they say of themselves, held-out ones too, and the trunk that a run begins
    with by its weights, wherever they lie.
    """
    said = recipe.model_dump(mode="json", exclude_unset=True, exclude=_WORDS)
    for key in ("cache", "train", "test"):
        said["data"].pop(key, None)
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for split in (recipe.data.train, recipe.data.test):
        _read_into(digest, split)
    if recipe.trunk is not None:
        for path in sorted(trunk_folder(recipe.trunk).glob("*.safetensors")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:_DIGITS]


def _read_into(digest: hashlib._Hash, split: str) -> None:
    """What a data set says of itself."""
    for name in ("info.json", "stats.json", "world.json"):
        path = expanded(split) / "meta" / name
        digest.update(path.read_bytes() if path.is_file() else b"")


def judged_on(recipe: Recipe, places: Places) -> Recipe:
    """The same, but for its held-out episodes: those that no recipe was chosen on."""
    folder = "judged-wandering" if "wandering" in Path(recipe.data.test).parts else "judged"
    data = recipe.data.model_copy(update={"test": str(places.data / folder / "test")})
    return recipe.model_copy(update={"data": data})


def _judges(recipe: Recipe, places: Places) -> str:
    digest = hashlib.sha256()
    _read_into(digest, judged_on(recipe, places).data.test)
    return digest.hexdigest()[:_DIGITS]


def identity_with(changes: Sequence[str], seed: int, places: Places) -> str:
    """Of the row that plans with so many changes more; empty if they are allowed no longer."""
    row = named(AFTER)
    try:
        recipe = recipe_of(replace(row, changes=(*row.changes, *changes)), seed, places)
    except RecipeError:
        return ""
    return identity(recipe)


def recipe_of(row: Row, seed: int, places: Places) -> Recipe:
    """A row's recipe with its changes; its runs lie by its identity, so that none is mixed up."""
    changes = [*row.changes, f"seed={seed}"]
    for name in row.after:
        folder = str(recipe_of(named(name), seed, places).folder)
        changes = [change.replace(f"{{{name}}}", folder) for change in changes]
    recipe = read_recipe(row.recipe, changes)
    output = places.runs / f"{row.name}-{identity(recipe)}"
    return recipe.model_copy(update={"output": str(output)})


def kept(row: Row, seed: int, places: Places) -> Found | None:
    """A run's results; None if it is not finished, or was another recipe's."""
    path = _path(row, seed, places)
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    try:
        timed = told.get("evaluated_in")
        found = Found(
            **{
                **told,
                "measures": [Measure(**one) for one in told["measures"]],
                "evaluated_in": None if timed is None else tuple(timed),
            }
        )
    except (KeyError, TypeError):  # another version's
        return None
    recipe = recipe_of(row, seed, places)
    same = found.identity == identity(recipe) and found.judged in ("", _judges(recipe, places))
    return found if same else None


def _finished(row: Row, seed: int, places: Places) -> Found | None:
    """Likewise, if it was measured on the episodes that rows are judged by."""
    found = kept(row, seed, places)
    return found if found is not None and found.judged else None


def wanted(row: Row, seed: int, places: Places) -> Iterator[Row]:
    """What is not finished of a row and of those whose runs it begins from; these first.

    Of these the run's folder is needed too, which is no part of a checkout.
    """
    for name in row.after if _finished(row, seed, places) is None else ():
        before = named(name)
        if not recipe_of(before, seed, places).checkpoint.exists():
            _path(before, seed, places).unlink(missing_ok=True)
        yield from wanted(before, seed, places)
    if _finished(row, seed, places) is None:
        yield row


def measured(row: Row, seed: int, places: Places, console: Console) -> Found:
    """Train and measure, or what was found before; an interrupted run goes on.

    Raises:
        Interrupted: Ctrl-C came; the same call goes on.
        DataError: the data set is not there, or not as it should be.
    """
    if (found := _finished(row, seed, places)) is not None:
        return found
    recipe = recipe_of(row, seed, places)
    say(console, f"{row.name}, seed {seed}: {recipe.schedule.steps} steps, in {recipe.folder}")
    splits = fitting_splits(judged_on(recipe, places), console)
    with _clocked(recipe) as clock:
        try:
            run = train(recipe, "cpu", resume=True, console=console)
        except CheckpointError as error:
            say(console, f"begins anew: {error}")
            shutil.rmtree(recipe.folder)
            clock.restart()
            run = train(recipe, "cpu", resume=True, console=console)
    measures, seconds = _timed(row, run, splits, places, console)
    found = Found(
        row=row.name,
        seed=seed,
        recipe=row.recipe,
        changes=list(row.changes),
        identity=identity(recipe),
        steps=recipe.schedule.steps,
        batch_size=recipe.schedule.batch_size,
        wall_seconds=round(clock.wall, 1),
        cpu_seconds=round(clock.cpu, 1),
        threads=torch.get_num_threads(),
        machine=machine(),
        commits=run.config.training.commit,
        measured_by=commit(),
        date=today(),
        measures=measures,
        evaluated_in=seconds,
        judged=_judges(recipe, places),
        probes=EDITION,
    )
    _write(_path(row, seed, places), found)
    return found


def measured_again(row: Row, seed: int, places: Places, console: Console) -> Found | None:
    """Measure a finished run anew, by its last checkpoint; what is known of its training stays.

    Returns:
        None: it has not been run, or its checkpoint is gone.

    Raises:
        ValueError: the checkpoint is of another run, or damaged.
        DataError: the data set is not there, or not as it should be.
    """
    before, recipe = kept(row, seed, places), recipe_of(row, seed, places)
    if before is None:
        return None
    if not recipe.checkpoint.exists():
        say(console, f"{row.name}, seed {seed}, stays as it is: {recipe.checkpoint} is gone")
        return None
    say(console, f"{row.name}, seed {seed}: measured again, from {recipe.folder}")
    splits = fitting_splits(judged_on(recipe, places), console)
    run = train(recipe, "cpu", resume=True, console=console)
    if (trained_by := run.config.training.commit) != before.commits:
        raise ValueError(
            f"{recipe.checkpoint} was trained by {trained_by}, and its numbers are of a run by "
            f"{before.commits}"
        )
    measures, seconds = _timed(row, run, splits, places, console)
    found = replace(
        before, measured_by=commit(), date=today(), measures=measures, evaluated_in=seconds,
        judged=_judges(recipe, places), probes=EDITION,
    )  # fmt: skip
    _write(_path(row, seed, places), found)
    return found


def _timed(
    row: Row, run: Run, splits: tuple[Samples, Samples], places: Places, console: Console
) -> tuple[list[Measure], tuple[float, float]]:
    """What there is to measure, and the seconds it took, on the wall and of all threads."""
    wall, busy = time.perf_counter(), time.process_time()
    supervised = None
    if LABELLED in row.rules:
        supervised = Supervised(read_recipe(TAUGHT).model, places.runs / "taught.json")
    measures = evaluate_run(run, splits, "cpu", console, supervised=supervised, probes=row.probed)
    seconds = time.perf_counter() - wall, time.process_time() - busy
    return measures, (round(seconds[0], 3), round(seconds[1], 3))


class _Clock:
    """Seconds spent on a run, those of its earlier parts among them, until it is stopped."""

    def __init__(self, file: Path, *, fresh: bool) -> None:
        self._file = file
        told = {} if fresh or not file.exists() else json.loads(file.read_text(encoding="utf-8"))
        self.wall, self.cpu = float(told.get("wall", 0)), float(told.get("cpu", 0))
        """On the wall, and of all threads; up to now once it is stopped, else of earlier parts."""
        self._began = (time.perf_counter(), time.process_time())

    def restart(self) -> None:
        """What was spent before is lost."""
        self.wall, self.cpu = 0.0, 0.0
        self._began = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Keep both for the next part, if there is a run to go on with."""
        wall, cpu = self._began
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        if self._file.parent.exists():
            told = {"wall": self.wall, "cpu": self.cpu}
            self._file.write_text(json.dumps(told), encoding="utf-8")


@contextmanager
def _clocked(recipe: Recipe) -> Iterator[_Clock]:
    clock = _Clock(recipe.folder / "spent.json", fresh=not recipe.checkpoint.exists())
    try:
        yield clock
    finally:
        clock.stop()


def _path(row: Row, seed: int, places: Places) -> Path:
    return places.results / f"{row.name}-seed{seed}.json"


def _write(path: Path, found: Found) -> None:
    """All of it or nothing."""
    told: dict[str, Any] = {**asdict(found), "measures": as_json(found.measures)}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".writing")
    draft.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def missing_data(row: Row, places: Places) -> str:
    """Which episodes of its recipe's are missing and how they are made; empty: none.

    Those that another command made are missing too: `make` leaves a folder as it is.
    """
    recipe = recipe_of(row, 0, places)
    for split in (recipe.data.train, recipe.data.test, judged_on(recipe, places).data.test):
        verb = next((name for name in Path(split).parts if name in MADE), "world")
        if not expanded(split).exists():
            return f"{split} is not there yet: `make {verb}` makes it (see worlds/README.md)"
        if verb in MADE and (found := _made_otherwise(expanded(split), MADE[verb])):
            return (
                f"{split} was made with {found}, and `make {verb}` makes it with "
                f"{' '.join(_said(MADE[verb]))}: move its folder away, and make it anew"
            )
    return ""


def _made_otherwise(split: Path, wanted: Mapping[str, str]) -> str:
    """What of the generator's options is not as wanted; empty: nothing."""
    path = split / "meta" / "world.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    words = shlex.split(told.get("command", ""))
    after = dict(pairwise(words))
    found = {
        name: after.get(name, "nothing said")
        if value
        else ("" if name in words else "nothing said")
        for name, value in wanted.items()
    }
    return " ".join(_said({k: v for k, v in found.items() if v != wanted[k]}))


def _said(options: Mapping[str, str]) -> list[str]:
    return [f"{name} {value}".rstrip() for name, value in options.items()]
