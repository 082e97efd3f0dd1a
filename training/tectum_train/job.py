"""Whole jobs, as the command line asks for them: train-evaluate-export, and evaluate."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tectum_core.bundle import Repository, read_bundle
from tectum_train.data import DataError, LeRobotDataset
from tectum_train.data.samples import Samples
from tectum_train.engine.run import open_samples, train
from tectum_train.evaluation.context import Columns
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.report import as_json, evaluate, flat, markdown
from tectum_train.export import as_bundle, export
from tectum_train.recipe import Recipe
from tectum_train.world import read_world

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
    # Opened before the training: what is wrong with it shall not be known hours later.
    test = open_samples(recipe, "test", lambda *_: None) if evaluated else None
    run = train(recipe, device, resume, console)
    samples = open_samples(recipe, "train", lambda *_: None)
    measures: list[Measure] = []
    if test is not None:
        with console.status("evaluating") as status:
            measures = evaluate(
                as_bundle(run, samples.instructions, {}),
                samples,
                test,
                _columns(recipe),
                recipe.seed,
                tell=lambda what: status.update(f"evaluating {what}"),
                left_out=lambda what: console.print(f"not evaluated: {what}"),
                device=device,
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


def _columns(recipe: Recipe) -> Columns:
    """Its own names; where it reads nothing, evaluation looks for the usual ones."""
    own = {
        "state": recipe.data.state,
        "action": recipe.data.action,
        "family": recipe.data.task,
    }
    return replace(Columns(), **{key: name for key, name in own.items() if name is not None})


def evaluate_bundle(
    folder: Path,
    data: Path,
    camera: str,
    columns: Columns,
    cache: Path,
    ceiling: bool,
    console: Console,
    test: Path | None = None,
    device: str = "cpu",
) -> list[Measure]:
    """Measure a bundle on held-out episodes.

    Args:
        folder: the bundle.
        data: holds `train`, where probes are fitted, and `test`, unless that is given.
        camera: the feature that holds the pictures.
        columns: what the other features are called.
        cache: where decoded frames lie.
        ceiling: also train the supervised ceiling of latent actions.
        console: where to show progress.
        test: a LeRobot folder to measure on in place of `data`/test.
        device: a torch device.

    Raises:
        BundleError: the folder is no sound bundle.
        DataError: the data cannot be read, or what is fitted on one set says nothing of the other.
    """
    bundle = read_bundle(folder, folder.name)
    with console.status("reading the data set") as status:

        def tell(done: int, total: int) -> None:
            status.update(f"decoding frames once: {done} of {total}")

        fitted_on, measured_on = (
            Samples.open(root, camera, bundle.config.images, cache, tell)
            for root in (data / "train", test or data / "test")
        )
        _check_alike(fitted_on.dataset, measured_on.dataset)
        return evaluate(
            bundle,
            fitted_on,
            measured_on,
            columns,
            bundle.config.training.seed,
            ceiling,
            lambda what: status.update(f"evaluating {what}"),
            lambda what: console.print(f"not evaluated: {what}"),
            device,
        )


def _check_alike(train: LeRobotDataset, test: LeRobotDataset) -> None:
    """That a probe fitted on one set can be asked about the other.

    Raises:
        DataError: it cannot.
    """
    if train.info.fps != test.info.fps:
        raise DataError(
            f"{test.root} has {test.info.fps:g} frames a second and {train.root} "
            f"{train.info.fps:g}; probes want them equal"
        )
    known, found = (read_world(dataset.root).families for dataset in (train, test))
    if known and found and known != found:
        raise DataError(
            f"{test.root} names other task families than {train.root}; probes want the same ones"
        )
