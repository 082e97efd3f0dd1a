"""The `tectum` command. Imports the other rooms lazily; nobody imports it.

The base install has no command line: `main` then says which extra brings it.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command, or say what is missing."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"tectum: the command needs the cli extra ({error.name} is missing): "
            "pip install 'tectum[cli]'\n"
        )
        raise SystemExit(1) from None
    from tectum_cli.app import app

    app()
