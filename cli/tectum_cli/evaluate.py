"""`tectum eval`: what bundles are worth on held-out episodes, controls beside each number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import console, errors, fail, needs
from tectum_cli.publish import bundle_of
from tectum_cli.train import check_world

__all__ = ["evaluate"]


def evaluate(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            help="Bundles' or runs' folders; several must be different seeds of one recipe.",
            metavar="FOLDER",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="Folder with the LeRobot folders `train` and `test`.", metavar="FOLDER"),
    ] = Path("data/tabletop"),
    test: Annotated[
        Path | None,
        typer.Option(
            help="LeRobot folder to measure on in place of DATA/test; probes stay fitted on "
            "DATA/train. A set that recipe and camera were chosen on flatters: for the last word, "
            "take one that nothing was chosen on.",
            metavar="FOLDER",
        ),
    ] = None,
    camera: Annotated[str, typer.Option(help="The camera's feature.", metavar="FEATURE")] = (
        "observation.images.front"
    ),
    state: Annotated[str, typer.Option(help="The robot state's feature.", metavar="FEATURE")] = (
        "observation.state"
    ),
    action: Annotated[str, typer.Option(help="The actions' feature.", metavar="FEATURE")] = (
        "action"
    ),
    intrinsics: Annotated[
        str,
        typer.Option(
            help="The camera intrinsics' feature, for bundles that read them.", metavar="FEATURE"
        ),
    ] = "camera.intrinsics",
    cache: Annotated[Path, typer.Option(help="Folder for decoded frames.", metavar="FOLDER")] = (
        Path("~/.cache/tectum/frames")
    ),
    device: Annotated[
        str, typer.Option(help="A torch device: cpu, cuda, cuda:1 …", metavar="DEVICE")
    ] = "cpu",
    ceiling: Annotated[
        bool,
        typer.Option(
            help="Also train the supervised ceiling of latent actions, and the same network on "
            "the earlier frame alone and on few labels (a quarter of an hour on two cores; an hour "
            "where latent actions read the trunk, which is then trained too)."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the measures as JSON.", metavar="FILE"),
    ] = None,
) -> None:
    """Measure bundles on episodes never trained on."""
    with needs("train"):
        from tectum_train.data import DataError
        from tectum_train.evaluation.measuring.context import Columns
        from tectum_train.evaluation.report import as_json, markdown
        from tectum_train.job import evaluate_bundles
    if out is not None and not out.parent.is_dir():  # rather now than when all is measured
        raise fail(f"--json: {out.parent} is not there")
    columns = Columns(state=state, action=action, intrinsics=intrinsics)
    try:
        runs = evaluate_bundles(
            [bundle_of(one) for one in bundles],
            data,
            camera,
            columns,
            cache.expanduser(),
            ceiling,
            errors,
            test,
            device,
        )
        table = markdown(runs)
    except DataError as error:
        for split in (data / "train", test or data / "test"):
            check_world(split)
        raise fail(str(error)) from error
    # ValueErrors are those of bundles and device.
    except (ValueError, FileNotFoundError) as error:
        raise fail(str(error)) from error
    console.print(table, highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        out.write_text(json.dumps([as_json(run) for run in runs.values()], indent=2) + "\n")
