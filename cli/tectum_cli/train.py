"""`tectum train`: a recipe becomes a bundle."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tectum_cli.extras import console, errors, fail, needs
from tectum_cli.publish import publishing, serving, show_line

__all__ = ["check_world", "train"]

_WORLDS = {Path("data/tabletop"): "make world", Path("data/wandering"): "make wandering"}
"""Where a checkout puts what the package's recipes learn from, and what makes it."""
_REPOSITORY = "models"
"""Of the lines that say how a bundle is published and served."""


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe's name (see --list) or a YAML file.", metavar="RECIPE"),
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
    show: Annotated[
        bool,
        typer.Option(
            "--list",
            help="List the recipes that come with the package, a line each; with RECIPE, print all "
            "that it says: command, time and expected numbers.",
        ),
    ] = False,
) -> None:
    """Train a recipe, and write a bundle.

    Evaluates on held-out episodes; the bundle's model card has the numbers. Ctrl-C saves, and the
    same command goes on. On several GPUs: torchrun --nproc-per-node 8 -m tectum_cli train RECIPE
    --device cuda; the result is that of one.
    """
    if show or not recipe:
        _list_recipes(recipe)
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


def _list_recipes(name: str) -> None:
    """All of them, a line each; or all that one says of itself."""
    with needs("train"):
        from tectum_train import recipes
        from tectum_train.recipe import read_recipe
    said = recipes.descriptions()
    if name:
        try:
            # One that the package lacks is refused as it would be if it were to be trained.
            text = said[name] if name in said else read_recipe(name).description
        except ValueError as error:
            raise fail(str(error)) from error
        _print_whole(text)
        return
    width = max(map(len, said))
    for one, text in said.items():
        first = re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]
        line = f"[bold]{one:<{width}}[/bold]  {escape(first)}"
        if console.is_terminal:
            console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
        else:
            console.print(line, highlight=False, soft_wrap=True)
    console.print("\ntectum train --list NAME says all of one: command, time, expected numbers.")


def _print_whole(text: str) -> None:
    """A description at the terminal's width; what is indented is a command, which stays whole."""
    # The file's own line breaks are another width's; those before a blank or an indent mean it.
    for line in re.sub(r"(?<=\S)\n(?=\S)", " ", text).splitlines():
        whole = line.startswith(" ")
        console.print(line, highlight=False, markup=False, soft_wrap=whole)
