"""Files as recipes name them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["content_of", "expanded"]


def expanded(path: str) -> Path:
    """A recipe's path with `~` and environment variables filled in."""
    return Path(os.path.expandvars(path)).expanduser()


def content_of(path: Path) -> str:
    """What a file holds, as 64 hex digits of SHA-256.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
