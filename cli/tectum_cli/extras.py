"""What to say when a command needs an extra that is not installed, or a call fails.

A person at a terminal gets one line that says what to do, never a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from tectum_cli import installed_by

__all__ = ["console", "errors", "fail", "needs", "told"]

console = Console()
errors = Console(stderr=True)

_OWN = ("tectum", "tectum_core", "tectum_train", "tectum_server", "tectum_cli")


def fail(message: str, code: int = 1) -> typer.Exit:
    """Say why on standard error; what is returned ends the command when raised."""
    errors.print(f"[red]tectum:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    return typer.Exit(code)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports that only `extra` brings."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in _OWN:
            raise
        raise fail(
            f"this command needs the {extra} extra ({error.name} is missing): {installed_by(extra)}"
        ) from error


@contextmanager
def told() -> Iterator[None]:
    """Turn what the SDK raises into one line."""
    from tectum import TectumError

    try:
        yield
    except TectumError as error:
        raise fail(str(error)) from error
