"""Which code a run was made by, as far as git can say."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["commit_of"]


def commit_of(file: Path) -> str:
    """The commit of the checkout that `file` belongs to.

    Returns:
        Twelve digits, with `+changes` behind them if tracked files differ from it; empty if
        there is no git, no checkout, or one that only happens to lie around the file.
    """
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return ""
    describe = ("describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*")
    return _git(file, *describe) or ""


def _git(file: Path, *arguments: str) -> str | None:
    """What git says in the file's folder; None if it fails."""
    try:
        found = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=file.parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
