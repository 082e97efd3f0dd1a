"""`tectum train`: a recipe becomes a bundle."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import errors, fail, needs
from tectum_cli.publish import publishing, serving, show_line
from tectum_cli.recipes import list_recipes, show_fields, show_recipe

__all__ = ["check_world", "train"]

_WORLDS = {Path("data/tabletop"): "make world", Path("data/wandering"): "make wandering"}
"""Where a checkout puts what the package's recipes learn from, and what makes it."""
_REPOSITORY = "models"
"""Of the lines that say how a bundle is published and served."""


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe's name (see --list) or a YAML file; with --fields, a path.",
            metavar="RECIPE",
        ),
    ] = "",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change one value: path.to.key=value; repeat for more.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for runs, in place of the recipe's (runs); this one goes to "
            "OUTPUT/<name>-seed<seed>.",
            metavar="FOLDER",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the settings that the run was begun with, whatever the recipe says "
            "now: only what says which run it is (name, seed, output) needs to be given again. "
            "Says what of the recipe is not used. A finished run is evaluated and written again. "
            "Without a checkpoint, begins anew.",
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help="A torch device: cpu, cuda, cuda:1 …", metavar="DEVICE")
    ] = "cpu",
    publish: Annotated[
        str | None,
        typer.Option(
            help="Also publish the bundle to this repository, as `tectum publish` does later.",
            metavar="PLACE",
        ),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option(help="Evaluate on the held-out episodes before exporting.")
    ] = True,
    listed: Annotated[
        bool,
        typer.Option(
            "--list",
            help="List the recipes that come with the package, a line each; with RECIPE, print all "
            "that it says: command, time and expected numbers.",
        ),
    ] = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Print all of the recipe as YAML, with every default and what is set; trains "
            "nothing. It can be kept in a file, and that trained.",
        ),
    ] = False,
    fields: Annotated[
        bool,
        typer.Option(
            "--fields",
            help="Say what a recipe may set, with defaults; with a path in the place of RECIPE, "
            "what stands there: schedule, schedule.steps, objectives.image_text.",
        ),
    ] = False,
) -> None:
    """Train a recipe, and write a bundle.

    Evaluates on held-out episodes; the bundle's model card has the numbers. Ctrl-C saves, and the
    same command goes on. On several GPUs: torchrun --nproc-per-node 8 -m tectum_cli train RECIPE
    --device cuda; the result is that of one.
    """
    if listed + show + fields > 1:
        raise fail("--list, --show and --fields are for one at a time", 2)
    if show and not recipe:
        raise fail("--show wants a RECIPE; `tectum train --list` names those of the package", 2)
    if fields:
        show_fields(recipe)
        return
    if listed or not recipe:
        list_recipes(recipe)
        return
    with needs("train"):
        from tectum_core.bundle import BundleNotFound
        from tectum_train.distributed import launched_as
        from tectum_train.engine.progress import say
        from tectum_train.engine.run import Interrupted
        from tectum_train.job import assist, run_job
        from tectum_train.recipe import read_recipe, resumed_recipe
    first = launched_as() == 0
    tell = partial(say, errors) if first else lambda _: None
    read = partial(resumed_recipe, tell=tell) if resume else read_recipe
    try:
        chosen = read(recipe, change or (), None if output is None else str(output))
    except ValueError as error:
        raise fail(str(error)) from error
    if show:
        show_recipe(chosen)
        return
    check_world(Path(chosen.data.train))
    try:
        if not first:
            assist(chosen, device, resume)
            return
        made = run_job(chosen, device, resume, evaluate, publish, errors)
    # ValueErrors are those of recipes, data, checkpoints and bundles.
    except (ValueError, FloatingPointError, OSError, BundleNotFound) as error:
        # A write to an open file that the disk has no room for does not know which.
        lost = isinstance(error, OSError) and error.errno is not None and error.filename is None
        raise fail(f"{chosen.folder}: {error}" if lost else str(error)) from error
    except KeyboardInterrupt as error:
        if first:
            if not isinstance(error, Interrupted):  # before or after training, or a second time
                say(errors, _going_on(chosen.folder, chosen.checkpoint.exists()))
            else:
                # Where there is no terminal, the line of the checkpoint said so a moment ago.
                saved = f"{error}; " if errors.is_terminal else ""
                say(errors, f"{saved}the same command goes on")
        raise typer.Exit(130) from error
    if made is None:
        what = "measured" if evaluate else "trained"
        show_line(f"{what} in {chosen.folder}; trunks that are stitched together make no bundle")
        return
    bundle, version = made
    show_line(f"bundle {version} in {bundle}")
    if publish is None:
        show_line(f"publish it: {publishing(bundle, _REPOSITORY)}")
    else:
        show_line(f"published {chosen.name}@{version} to {publish}")
    show_line(f"serve it: {serving(publish or _REPOSITORY, chosen.name)}")


def _going_on(folder: Path, saved: bool) -> str:
    """How, after an interrupt for which nothing was saved."""
    if not saved:
        return "nothing is trained yet: the same command begins anew"
    return f"what was trained until the last checkpoint is in {folder}; --resume goes on with it"


def check_world(split: Path) -> None:
    """Say how it is made, if `split` is of a generated world and nobody has made it yet."""
    command = _WORLDS.get(split.parent)
    if command is not None and not split.exists():
        raise fail(f"{split} is not there yet: `{command}` makes it (see worlds/README.md)")
