"""Whole jobs, as the command line asks for them: train-evaluate-export, and evaluate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rich.console import Console

from tectum_core.bundle import Repository, read_bundle
from tectum_train.data.samples import Samples
from tectum_train.engine.run import open_samples, train
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.report import as_json, evaluate, flat, markdown
from tectum_train.export import as_bundle, export
from tectum_train.recipe import Recipe, expanded

__all__ = ["evaluate_bundle", "run_job"]


def run_job(
    recipe: Recipe,
    device: str,
    resume: bool,
    evaluated: bool,
    publish: Path | None,
    console: Console,
) -> tuple[Path, str]:
    """Train, evaluate, write the bundle; gives its folder and version.

    Args:
        recipe: the run.
        device: a torch device.
        resume: go on from the run's checkpoint.
        evaluated: measure on the held-out episodes before exporting.
        publish: a repository that gets the bundle too.
        console: where to show progress.
    """
    run = train(recipe, device, resume, console)
    samples = open_samples(recipe, "train", lambda *_: None)
    measures: list[Measure] = []
    if evaluated:
        with console.status("evaluating") as status:
            test = open_samples(recipe, "test", lambda *_: None)
            measures = evaluate(
                as_bundle(run, samples.instructions, {}),
                samples,
                test,
                expanded(recipe.data.test),
                recipe.seed,
                tell=lambda what: status.update(f"evaluating {what}"),
            )
        (run.folder / "evaluation.json").write_text(json.dumps(as_json(measures), indent=2) + "\n")
    table = markdown([measures]) if measures else "Not evaluated."
    folder = run.folder / "bundle"
    if folder.exists():
        shutil.rmtree(folder)
    version = export(run, samples.instructions, flat(measures), table, folder)
    if publish is not None:
        Repository(publish).publish(folder, recipe.name)
    return folder, version


def evaluate_bundle(
    folder: Path, data: Path, camera: str, cache: Path, ceiling: bool, console: Console
) -> list[Measure]:
    """Measure a bundle on a data folder's `train` and `test` splits.

    Raises:
        BundleError: the folder is no sound bundle.
        DataError: the data cannot be read.
        FileNotFoundError: the data says nothing of task families.
    """
    bundle = read_bundle(folder, folder.name)
    with console.status("reading the data set") as status:

        def tell(done: int, total: int) -> None:
            status.update(f"decoding frames once: {done} of {total}")

        train_split, test_split = (
            Samples.open(data / split, camera, bundle.config.images, cache, tell)
            for split in ("train", "test")
        )
        return evaluate(
            bundle,
            train_split,
            test_split,
            data / "test",
            bundle.config.training.seed,
            ceiling,
            lambda what: status.update(f"evaluating {what}"),
        )
