"""What a run was made of: which code, as far as git can say, and which data."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tectum_core.preprocess import ActionScaling
from tectum_core.tokenizer import Tokenizer
from tectum_train.data.metadata import read_episodes, read_info

__all__ = ["commit_of", "fingerprint_of"]

_MEBIBYTE = 2**20
_READ_WHOLE = 256 * _MEBIBYTE


_RESULTS = "benchmarks/results"
"""Where what was measured lies in the checkout: it is written while others still run."""


def commit_of(file: Path) -> str:
    """The commit of the checkout that `file` belongs to.

    Returns:
        Twelve digits, with `+changes` behind them if tracked files differ from it, results apart,
        which a run cannot read; empty if there is no git, no checkout, or one that only happens to
        lie around the file.
    """
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return ""
    described = _git(file, "describe", "--always", "--abbrev=12", "--exclude=*")
    if not described:
        return ""
    same = _git(file, "diff", "--quiet", "HEAD", "--", ":/", f":(top,exclude){_RESULTS}")
    return described if same is not None else f"{described}+changes"


def fingerprint_of(root: Path, tokenizer: Tokenizer | None, scaling: ActionScaling | None) -> str:
    """What learnt weights presuppose of their data, as 64 hex digits.

    Depends on what files hold and on their places in the folder, never on where it lies or when
    they were written: a data set that was moved or copied keeps it. Rows and films of up to
    256 MiB in all are read whole. Of more than that, each file counts by its size and its first
    and last mebibyte, some seconds for 100 GB: that is where parquet and mp4 keep their tables of
    contents, among them the size of every compressed frame, so a file that was made anew shows.

    Args:
        root: of a LeRobot folder: its info.json, tasks, episode table, rows and films count; of
            films, those that are there, whichever camera's.
        tokenizer: made of its instructions; None without a text trunk.
        scaling: of its actions; None without an action path.

    Raises:
        DataError: its metadata cannot be read.
    """
    meta, total = root / "meta", hashlib.sha256()
    tables = sorted((meta / "episodes").glob("**/*.parquet"))
    for path in (meta / "info.json", meta / "tasks.parquet", *tables):
        _count_in(total, root, path, whole=True)
    recorded = list(_recorded(root))
    whole = sum(path.stat().st_size for path in recorded) <= _READ_WHOLE
    for path in recorded:
        _count_in(total, root, path, whole=whole)
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


def _recorded(root: Path) -> Iterator[Path]:
    """Files with rows and films that the episode table names, each once; absent ones left out."""
    episodes = read_episodes(root, read_info(root))
    named = {episode.data_path for episode in episodes}
    named |= {span.path for episode in episodes for span in episode.videos.values()}
    return (path for path in sorted(named) if path.exists())


def _count_in(total: hashlib._Hash, root: Path, path: Path, *, whole: bool) -> None:
    """Let a file's name and content count: all of it, or its size and both ends."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if whole or size <= 2 * _MEBIBYTE:
            while part := file.read(_MEBIBYTE):
                content.update(part)
        else:
            content.update(f"{size}".encode() + file.read(_MEBIBYTE))
            file.seek(-_MEBIBYTE, os.SEEK_END)
            content.update(file.read(_MEBIBYTE))
    total.update(path.relative_to(root).as_posix().encode() + b"\0" + content.digest())


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
