"""Paths as people write them in a recipe."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["expanded"]


def expanded(path: str) -> Path:
    """A recipe's path with `~` and environment variables filled in."""
    return Path(os.path.expandvars(path)).expanduser()
