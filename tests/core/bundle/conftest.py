"""What the tests of bundles share."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from tests.bundles import write_bare

from tectum_core.bundle import Repository


@pytest.fixture
def folder(full_folder: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, to damage."""
    return Path(shutil.copytree(full_folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of unequal content."""
    root = tmp_path_factory.mktemp("two")
    for seed in (1, 2):
        write_bare(root / str(seed), seed)
    return [root / "1", root / "2"]


@pytest.fixture
def remote_root() -> Iterator[str]:
    """The URL of an empty repository."""
    name = f"/{uuid.uuid4().hex}"
    yield f"memory:/{name}"
    files = fsspec.filesystem("memory")
    if files.exists(name):
        files.rm(name, recursive=True)


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path, remote_root: str) -> str:
    """An empty repository's place: a folder, and a URL."""
    return str(tmp_path / "models") if request.param == "local" else remote_root


@pytest.fixture
def repository(root: str, tmp_path: Path) -> Repository:
    return Repository(root, cache=tmp_path / "cache")
