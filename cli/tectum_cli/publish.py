"""`tectum publish`: a bundle that proves itself goes into a repository; and how it is served."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tectum_cli.extras import console, fail, needs

__all__ = ["bundle_of", "publish", "publishing", "serving", "show_line"]


def publish(
    bundle: Annotated[
        Path,
        typer.Argument(help="A run's folder, or its bundle's, RUN/bundle.", metavar="FOLDER"),
    ],
    repository: Annotated[
        str,
        typer.Option(
            help="Where to: a folder, made if it is not there, or any fsspec URL.", metavar="PLACE"
        ),
    ],
    name: Annotated[
        str,
        typer.Option(help="What to call it; empty: as the run was called.", metavar="NAME"),
    ] = "",
) -> None:
    """Publish a bundle to a repository, for `tectum serve`.

    Checks before that it reads, and that this machine reproduces its golden outputs.
    """
    with needs("train"):
        from tectum_core.bundle import BundleNotFound, Repository, read_bundle
        from tectum_core.golden import check_golden
        from tectum_core.predictor import Predictor
    bundle = bundle_of(bundle)
    try:
        read = read_bundle(bundle, str(bundle))
        called = name or read.config.training.recipe
        if not called:
            raise fail(f"{bundle} does not say what its run was called; give it a --name")
        report = check_golden(Predictor(read))
        version = Repository(repository).publish(bundle, called)
    # ValueErrors are those of bundle, golden outputs and a URL; ImportErrors of its protocol.
    except (ValueError, OSError, ImportError, BundleNotFound) as error:
        raise fail(str(error)) from error
    show_line(f"reproduces its {report.outputs} golden outputs here")
    show_line(f"published {called}@{version} to {repository}")
    show_line(f"serve it: {serving(repository, called)}")


def bundle_of(folder: Path) -> Path:
    """The bundle's own folder, where a run's is given.

    Raises:
        typer.Exit: no bundle lies there; says what was found and what is allowed.
    """
    allowed = "allowed: the folder of a finished run, or its bundle's, RUN/bundle"
    if not folder.is_dir():
        raise fail(f"{folder} is not there; {allowed}")
    inner = folder / "bundle"
    found = inner if (inner / "config.json").is_file() else folder
    if not (found / "config.json").is_file():
        raise fail(f"{folder} holds no bundle: config.json is missing; {allowed}")
    return found


def publishing(bundle: Path, repository: str) -> str:
    """The command that publishes a bundle."""
    return shlex.join(["tectum", "publish", str(bundle), "--repository", repository])


def serving(repository: str, name: str) -> str:
    """The command that serves what is published."""
    return shlex.join(["tectum", "serve", "--repository", repository, "--model", name])


def show_line(line: str) -> None:
    """A line to be copied: not broken at the terminal's width."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
