"""Whole jobs, as the command line asks for them: train-evaluate-export, assist, and evaluate."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from tectum_core.bundle import Bundle, Repository, read_bundle
from tectum_train.data.samples import Samples
from tectum_train.distributed import joined
from tectum_train.engine.building import Run, check_parts, open_samples, servable
from tectum_train.engine.precision import bfloat16_cost
from tectum_train.engine.progress import say, telling
from tectum_train.engine.run import train
from tectum_train.engine.states import StateFeatures
from tectum_train.evaluation.board import write_board
from tectum_train.evaluation.latent_action.ceiling import Supervised
from tectum_train.evaluation.measuring.context import Columns
from tectum_train.evaluation.measuring.fits import check_fits, check_seeds
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.objectives.trained import measure_objectives
from tectum_train.evaluation.report import as_json, evaluate, flat, markdown
from tectum_train.export import as_bundle, export
from tectum_train.recipe import Recipe, RecipeError

__all__ = [
    "assist",
    "check_device",
    "evaluate_bundles",
    "evaluate_run",
    "fitting_splits",
    "run_job",
]

_MEASURED = "evaluation.json"
"""In a run's folder: what was measured of it, finished."""
_DEAR = 2.0
"""From which cost of bfloat16 on, products alone, a whole step is dearer too."""


def run_job(
    recipe: Recipe,
    device: str,
    resume: bool,
    evaluated: bool,
    publish: str | Path | None,
    console: Console,
) -> tuple[Path, str] | None:
    """Train, evaluate, write the bundle; gives its folder and version, or None if it has none.

    A finished run that is resumed without an evaluation keeps the one it has. Where a launcher
    started several ranks this is the first one's job; the others `assist`.

    Args:
        recipe: the run.
        device: a torch device.
        resume: go on from the run's checkpoint.
        evaluated: measure on the held-out episodes before exporting.
        publish: a repository that gets the bundle too, a folder or an fsspec URL.
        console: where to show progress.

    Raises:
        RecipeError: there will be no bundle to publish, or no folder for the run.
        ValueError: an objective lacks a part of the model, or a file (see `check_parts`).
    """
    check_device(device)
    if publish is not None and not servable(recipe):
        raise RecipeError("tasks.sharing: trunks that are stitched together leave no bundle")
    if publish is not None:
        Repository(publish).versions(recipe.name)  # that it cannot be reached shall be known now
    size = f"{recipe.schedule.steps} steps of {recipe.schedule.batch_size} samples"
    say(console, f"{recipe.name} on {device}: {size}, seed {recipe.seed}, in {recipe.folder}")
    _warn_of_bfloat16(recipe, device, console)
    check_parts(recipe)  # before data are decoded for minutes
    _check_output(recipe)
    # Before the training: what is wrong with them shall not be known hours later.
    splits = fitting_splits(recipe, console) if evaluated else None
    measured = recipe.folder / _MEASURED
    if not recipe.checkpoint.exists():
        measured.unlink(missing_ok=True)  # of a run that is no more
    with joined(device) as own_device:
        run = train(recipe, own_device, resume, console)
    samples = splits[0] if splits else open_samples(recipe, "train", lambda *_: None)
    if splits:
        measures = evaluate_run(run, splits, device, console)
        measured.write_text(json.dumps(as_json(measures), indent=2) + "\n")
    else:
        measures = _measured_before(measured, console)
    table = markdown({recipe.name: measures}) if measures else "Not evaluated."
    if not servable(recipe):
        return None
    folder = run.folder / "bundle"
    if folder.exists():
        shutil.rmtree(folder)
    version = export(run, samples.instructions, flat(measures), table, folder)
    if publish is not None:
        Repository(publish).publish(folder, recipe.name)
    return folder, version


def _check_output(recipe: Recipe) -> None:
    """That the run's folder can be made; who may write where is told by trying alone."""
    place = next(one for one in (recipe.folder, *recipe.folder.parents) if one.exists())
    try:
        tempfile.TemporaryDirectory(dir=place).cleanup()
    except OSError as error:
        raise RecipeError(
            f"output: found {recipe.output}; allowed: a folder that can be made or written: "
            f"{place}: {error.strerror}"
        ) from error


def _warn_of_bfloat16(recipe: Recipe, device: str, console: Console) -> None:
    """Where it is the slower choice, and there is a choice: a run keeps what it began with."""
    if recipe.precision == "float32" or recipe.checkpoint.exists():
        return
    if (cost := bfloat16_cost(device)) > _DEAR:
        say(
            console,
            f"bfloat16 takes {cost:.0f} times as long as float32 here, for want of instructions: "
            "--set precision=float32 will be faster",
        )


def evaluate_run(
    run: Run,
    splits: tuple[Samples, Samples],
    device: str,
    console: Console,
    *,
    supervised: Supervised | None = None,
    probes: bool = True,
) -> list[Measure]:
    """What was learnt; where objectives have a trunk each, what each of them did, by its kind.

    TensorBoard's files get it too.

    Args:
        run: a finished one.
        splits: `fitting_splits` of its recipe.
        device: a torch device.
        console: where to show progress.
        supervised: networks beside latent actions (see `evaluate`).
        probes: whether the frozen trunk is asked, too.
    """
    columns, found = _columns(run.recipe), list[Measure]()
    with telling(console, "evaluating") as tell:
        for kind, own in (run.views or {"": run}).items():
            whose = f"{kind}: " if kind else ""

            def told(what: str, whose: str = whose) -> None:
                tell(f"evaluating {whose}{what}")

            def missed(what: str, whose: str = whose) -> None:
                say(console, f"not evaluated: {whose}{what}")

            bundle = as_bundle(own, splits[0].instructions, {})
            parts = [part for part in run.parts if not kind or part.name == kind]
            measures = evaluate(
                bundle, *splits, columns, run.recipe.seed, supervised,
                tell=told, left_out=missed, device=device, objectives=parts, probes=probes,
            )  # fmt: skip
            found += [
                replace(one, name=whose + one.name, part=whose + one.part) for one in measures
            ]
        found += measure_objectives(
            run, splits[1],
            tell=lambda what: tell(f"evaluating {what}"),
            left_out=lambda what: say(console, f"not evaluated: {what}"),
            device=device,
        )  # fmt: skip
    write_board(run.folder, run.recipe.schedule.steps, found)
    return found


def assist(recipe: Recipe, device: str, resume: bool) -> None:
    """Train as another rank than the first one, which says and writes everything."""
    check_device(device)
    with joined(device) as own_device:
        train(recipe, own_device, resume, Console(quiet=True))


def _measured_before(path: Path, console: Console) -> list[Measure]:
    """What was measured of a run once it was finished, if it was.

    Only a finished run leaves such a file, and its checkpoint lets none go on with other steps.
    """
    if not path.exists():
        return []
    try:
        measures = [Measure(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        say(console, f"{path} cannot be read, so the bundle is not evaluated: {error}")
        return []
    say(console, f"not evaluated again: the numbers are those of {path}")
    return measures


def fitting_splits(recipe: Recipe, console: Console) -> tuple[Samples, Samples]:
    """Both splits, on which the model that the recipe makes can be measured.

    Raises:
        DataError: they cannot be read, or model and data contradict each other.
    """
    with telling(console, "reading the data sets") as tell:
        train_split, test_split = (
            open_samples(recipe, split, tell.decoding) for split in ("train", "test")
        )
    flip = recipe.augmentation.flip
    check_fits(
        recipe.model,
        _columns(recipe),
        train_split,
        test_split,
        shown=StateFeatures(recipe.data.state, recipe.data.intrinsics),
        exchanged={} if flip is None else flip.words or {},
    )
    return train_split, test_split


def _columns(recipe: Recipe) -> Columns:
    """Its own names; where it reads nothing, evaluation looks for the usual ones."""
    own = {
        "state": recipe.data.state,
        "action": recipe.data.action,
        "family": recipe.data.task,
        "intrinsics": recipe.data.intrinsics,
    }
    return replace(Columns(), **{key: name for key, name in own.items() if name is not None})


def evaluate_bundles(
    folders: Sequence[Path],
    data: Path,
    camera: str,
    columns: Columns,
    cache: Path,
    ceiling: bool,
    console: Console,
    test: Path | None = None,
    device: str = "cpu",
) -> dict[str, list[Measure]]:
    """Measure seeds of one recipe on held-out episodes; gives each folder's measures.

    Args:
        folders: the bundles, at least one.
        data: holds `train`, where probes are fitted, and `test`, unless that is given.
        camera: the feature that holds the pictures.
        columns: what the other features are called.
        cache: where decoded frames lie.
        ceiling: also train networks that are told what latent actions have to find.
        console: where to show progress.
        test: a LeRobot folder to measure on in place of `data`/test.
        device: a torch device.

    Raises:
        BundleError: a folder is no sound bundle.
        DataError: the data cannot be read, or they and the bundles contradict each other.
        ValueError: the bundles are no seeds of one recipe, or the device cannot be used.
    """
    check_device(device)
    bundles = [(str(folder), read_bundle(folder, str(folder))) for folder in folders]
    check_seeds(bundles)
    with telling(console, "reading the data sets") as tell:
        fitted_on, measured_on = (
            Samples.open(root, camera, bundles[0][1].config.images, cache, tell.decoding)
            for root in (data / "train", test or data / "test")
        )

        def measured(name: str, bundle: Bundle) -> list[Measure]:
            which = f"{name}: " if len(bundles) > 1 else ""
            return evaluate(
                bundle,
                fitted_on,
                measured_on,
                columns,
                bundle.config.training.seed,
                Supervised() if ceiling else None,
                lambda what: tell(f"evaluating {which}{what}"),
                lambda what: say(console, f"not evaluated: {which}{what}"),
                device,
            )

        return {name: measured(name, bundle) for name, bundle in bundles}


def check_device(device: str) -> None:
    """That torch can compute there.

    Raises:
        ValueError: it cannot; says why in one line.
    """
    try:
        torch.ones(1, device=device).item()
    # An AssertionError is a torch that was built without CUDA.
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"device {device!r} cannot be used: {why}") from error
