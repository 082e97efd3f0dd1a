"""`tectum train`: a recipe becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import console, errors, fail, needs

__all__ = ["train"]


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (see --list) or a YAML file.")
    ] = "",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value: path.to.key=value; repeat for more."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's checkpoint.")
    ] = False,
    device: Annotated[str, typer.Option(help="A torch device: cpu, cuda, cuda:1 …")] = "cpu",
    publish: Annotated[
        Path | None, typer.Option(help="Also publish the bundle to this repository.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option(help="Evaluate on the held-out episodes before exporting.")
    ] = True,
    show: Annotated[
        bool, typer.Option("--list", help="List the recipes that come with the package.")
    ] = False,
) -> None:
    """Train, evaluate on held-out episodes, and write a bundle with its model card."""
    with needs("train"):
        from tectum_train.engine.run import Interrupted
        from tectum_train.job import run_job
        from tectum_train.recipe import read_recipe, recipe_names
    if show or not recipe:
        for name in recipe_names():
            console.print(f"[bold]{name}[/bold]  {read_recipe(name).description.strip()}")
        return
    try:
        chosen = read_recipe(recipe, change or ())
        bundle, version = run_job(chosen, device, resume, evaluate, publish, errors)
    # ValueErrors are those of recipes, data, checkpoints and bundles.
    except (ValueError, FloatingPointError, FileExistsError, FileNotFoundError) as error:
        raise fail(str(error)) from error
    except Interrupted as error:
        errors.print(f"{error}; go on with --resume")
        raise typer.Exit(130) from error
    console.print(f"bundle {version} in {bundle}", highlight=False)
