"""What a run was made of: which code, as far as git can say, and which data."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer

__all__ = ["commit_of", "fingerprint_of"]


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


def fingerprint_of(root: Path, tokenizer: Tokenizer | None, scaling: ActionScaling | None) -> str:
    """What learnt weights presuppose of their data, as 64 hex digits.

    Args:
        root: of a LeRobot folder: its info.json, tasks and episode table count.
        tokenizer: made of its instructions; None without a text trunk.
        scaling: of its actions; None without an action path.
    """
    meta, total = root / "meta", hashlib.sha256()
    tables = sorted((meta / "episodes").glob("**/*.parquet"))
    for path in (meta / "info.json", meta / "tasks.parquet", *tables):
        name = path.relative_to(meta).as_posix()
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    total.update(hashlib.sha256(b"" if tokenizer is None else tokenizer.json.encode()).digest())
    if scaling is not None:
        # Sums differ in their last digits from one processor to another.
        numbers = [
            [f"{value:.6g}" for value in part]
            for part in (
                scaling.mean,
                scaling.standard_deviation,
                scaling.state_mean,
                scaling.state_standard_deviation,
            )
        ]
        total.update(repr((scaling.names, scaling.state_names, numbers)).encode())
    return total.hexdigest()


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
