"""A front's end of a link, before an engine that is held and before a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.linked import HeldEngine, Rig

from tectum_core.bundle import Repository
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.metrics import EngineMetrics


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[tuple[Rig, HeldEngine]]:
    """An engine that answers when told, with what it was sent."""
    rig, engine = Rig(tmp_path / "socket"), HeldEngine()
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()
    yield rig, engine
    engine.free.set()
    await rig.close()


@pytest.fixture
async def local(tmp_path: Path, full_folder: Path) -> AsyncIterator[tuple[Rig, LocalEngine]]:
    """An engine that serves the full bundle."""
    Repository(tmp_path / "models").publish(full_folder, "arm")
    settings = EngineSettings(str(tmp_path / "models"), ("arm",), max_batch=2)
    engine = LocalEngine(settings, EngineMetrics(CollectorRegistry()))
    await engine.start()
    rig = Rig(tmp_path / "socket")
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()
    yield rig, engine
    await rig.close()
    await engine.close()
