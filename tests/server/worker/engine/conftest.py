"""A scheduler that is held, and an engine that serves one model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.worker.engine.engines import engine_for
from tests.server.worker.engine.gated import Rig

from tectum_core.bundle import Repository
from tectum_server.worker.engine.local import LocalEngine


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    rig.predictor.open()
    await rig.scheduler.close()


@pytest.fixture
def root(tmp_path: Path, bare_folder: Path) -> Path:
    """A repository that holds `arm`."""
    root = tmp_path / "models"
    Repository(root).publish(bare_folder, "arm")
    return root


@pytest.fixture
async def engine(root: Path) -> AsyncIterator[LocalEngine]:
    """An engine that serves `arm`."""
    engine = engine_for(root, "arm")
    await engine.start()
    yield engine
    await engine.close()
