"""The tiny recipe as a file, and where its run goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tests.training.tiny import job

__all__ = ["run_folder", "written"]


def written(data: Path, folder: Path, **changes: Any) -> Path:
    """A file with the tiny recipe, some of it changed."""
    path = folder / "tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = job(data, folder, **changes).model_dump(mode="json")
    path.write_text(yaml.safe_dump(tree))
    return path


def run_folder(folder: Path) -> Path:
    """Where such a recipe's run keeps its files."""
    return folder / "runs" / "tiny-seed0"
