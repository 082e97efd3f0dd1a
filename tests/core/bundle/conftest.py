"""What the tests of bundles share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(full_folder: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, to damage."""
    return Path(shutil.copytree(full_folder, tmp_path / "copy"))
