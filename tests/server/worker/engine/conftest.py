"""A scheduler that is held, and an engine that serves one model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry
from tests.late_device import LateDevice, as_device
from tests.server.worker.engine.engines import Started, engine_for
from tests.server.worker.engine.gated import Rig

from tectum_core.bundle import Repository, memory_of
from tectum_core.launching import embedding_lane
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing import running
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.models import graphs
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.metrics import EngineMetrics


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


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def started(root: Path, registry: CollectorRegistry) -> AsyncIterator[Started]:
    """Starts engines, with what the settings say otherwise, and ends them."""
    engines: list[LocalEngine] = []

    async def start(*models: str, **changes: Any) -> LocalEngine:
        settings = EngineSettings(str(root), models, max_batch=1, **changes)
        own = CollectorRegistry() if engines else registry
        engines.append(LocalEngine(settings, EngineMetrics(own)))
        await engines[-1].start()
        return engines[-1]

    yield start
    for engine in engines:
        await engine.close()


@pytest.fixture
def three(root: Path, bare_folder: Path) -> int:
    """`leg` and `hand` beside `arm`; gives the bytes that each of them takes."""
    for name in ("leg", "hand"):
        Repository(root).publish(bare_folder, name)
    return memory_of(bare_folder, "arm")


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error of a device is its end."""
    monkeypatch.setattr(
        running, "device_lost", lambda error, _: isinstance(error, torch.AcceleratorError)
    )


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateDevice:
    """A device for all models, whatever they are on."""
    late = LateDevice()

    def lane(predictor: Predictor, max_batch: int) -> object:
        return embedding_lane(predictor, max_batch, lambda _: as_device(late))

    monkeypatch.setattr(graphs, "embedding_lane", lane)
    return late
