"""What the command's tests share: a bundle, a worker that serves it, and data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.running import Worker

from tectum_cli import extras


@pytest.fixture(autouse=True)
def _wide_consoles() -> None:
    """Messages in one line, however long."""
    extras.console.width = extras.errors.width = 400


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with `train` and `test`, and room for decoded frames; never write into it."""
    from tests.training.tiny import write_data

    return write_data(tmp_path_factory.mktemp("tabletop"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one untrained model, `tiny`, of the data set's shapes."""
    from tests.training.tiny import write_untrained_bundle

    from tectum_core.bundle import Repository

    root = tmp_path_factory.mktemp("repository")
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_untrained_bundle(folder)
    Repository(root).publish(folder, "tiny")
    return root


@pytest.fixture(scope="session")
def worker(repository: Path) -> Iterator[str]:
    """The address of a real worker that serves `tiny`."""
    with Worker(repository, "tiny") as worker:
        yield worker.address
