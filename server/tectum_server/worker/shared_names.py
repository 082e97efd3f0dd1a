"""How shared memory for frames is called, and how what a front has left of it is taken away.

A front that is killed cannot take a name away; who began it can, for it gave the names' beginning.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

__all__ = ["FOLDER", "beginning", "fresh", "sweep"]

FOLDER = Path("/dev/shm")  # noqa: S108 - Linux's own for POSIX shared memory, which has no other
_HALF = 8
"""Random bytes of a name's beginning, and as many of its end."""


def beginning() -> str:
    """Of all names of one front, and of no other's."""
    return f"tectum-{secrets.token_hex(_HALF)}"


def fresh(begins: str) -> str:
    """A name that nobody can guess."""
    return f"{begins}{secrets.token_hex(_HALF)}"


def sweep(begins: str) -> None:
    """Take away every name that begins so."""
    for path in FOLDER.glob(f"{begins}*"):
        with suppress(OSError):
            path.unlink()
