"""The `tectum` command. Imports the other rooms lazily; nobody imports it.

The base install has no command line: `main` then says which extra brings it.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

__all__ = ["installed_by", "main"]


def installed_by(extra: str) -> str:
    """What to do for an extra, wherever this Tectum was installed from."""
    return f"install tectum[{extra}], in a checkout with pip install '.[{extra}]'"


def main() -> None:
    """Run the command, or say what is missing."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"tectum: the command needs the cli extra ({error.name} is missing): "
            f"{installed_by('cli')}\n"
        )
        raise SystemExit(1) from None
    # Threads that wait by spinning take the cores from whoever shares them: a start beside other
    # work took a minute instead of ten seconds. Read when torch is loaded, here or in a child.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Nothing that is left needs to be looked through: with torch, that takes a second.
    atexit.register(gc.freeze)
    try:
        from tectum_cli.app import app

        app()
    except KeyboardInterrupt:  # while it was still importing
        raise SystemExit(130) from None
