"""`tectum eval`: what bundles are worth on held-out episodes, controls beside each number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import console, errors, fail, needs

__all__ = ["evaluate"]


def evaluate(
    bundles: Annotated[
        list[Path], typer.Argument(help="Bundle folders; several are seeds of one recipe.")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder with the LeRobot folders `train` and `test`.")
    ] = Path("data/tabletop"),
    camera: Annotated[str, typer.Option(help="The camera's feature.")] = (
        "observation.images.front"
    ),
    cache: Annotated[Path, typer.Option(help="Folder for decoded frames.")] = Path(
        "~/.cache/tectum/frames"
    ),
    ceiling: Annotated[
        bool, typer.Option(help="Also train the supervised ceiling of latent actions (minutes).")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--json", help="Also write the measures as JSON.")
    ] = None,
) -> None:
    """Measure bundles on episodes of layouts they were never trained on."""
    with needs("train"):
        from tectum_core.bundle import BundleError
        from tectum_train.data import DataError
        from tectum_train.evaluation.report import as_json, markdown
        from tectum_train.job import evaluate_bundle
    runs = []
    try:
        runs += [
            evaluate_bundle(folder, data, camera, cache.expanduser(), ceiling, errors)
            for folder in bundles
        ]
    except (BundleError, DataError, FileNotFoundError) as error:
        raise fail(str(error)) from error
    console.print(markdown(runs), highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        out.write_text(json.dumps([as_json(run) for run in runs], indent=2) + "\n")
