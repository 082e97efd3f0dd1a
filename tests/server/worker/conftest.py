"""Workers to test against: one in this process for the whole session, others as asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.asking import ADMIN, USER
from tests.server.worker.scripted import ScriptedEngine
from tests.server.worker.serving import Caller, Fronted, Inline, Loop

from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.jobs import ModelEntry
from tectum_server.worker.metrics import EngineMetrics


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """Where every server of this process lives."""
    loop = Loop()
    with pytest.MonkeyPatch.context() as patch:
        # Dozens of fronts end here, and none of them has callers that it does not know of.
        patch.setattr("tectum_server.worker.front.server._QUIET_SECONDS", 0.001)
        yield loop
    loop.close()


@pytest.fixture(scope="session")
def worker(loop: Loop, repository: Path) -> Iterator[Caller]:
    """A client of a whole worker that serves both models to anybody."""
    served = Inline(
        loop, repository=str(repository), models=("full", "bare"), max_batch=16, max_text_bytes=300
    )
    yield served.client
    served.close()


@pytest.fixture(scope="session")
def entries(loop: Loop, repository: Path) -> Mapping[str, ModelEntry]:
    """Both models as an engine announces them."""
    settings = EngineSettings(str(repository), ("full", "bare"), max_batch=1)

    async def load() -> Mapping[str, ModelEntry]:
        engine = LocalEngine(settings, EngineMetrics(CollectorRegistry()))
        await engine.start()
        models = dict(engine.models)
        await engine.close()
        return models

    return loop.run(load())


@pytest.fixture
def engine(loop: Loop, entries: Mapping[str, ModelEntry]) -> ScriptedEngine:
    """An engine that does what the test says."""
    return ScriptedEngine(loop, entries)


@pytest.fixture
def fronted(loop: Loop, engine: ScriptedEngine) -> Iterator[Callable[..., Fronted]]:
    """Start fronts before that engine, with settings of one's own."""
    started: list[Fronted] = []

    def start(**changes: Any) -> Fronted:
        started.append(Fronted(loop, engine, **changes))
        return started[-1]

    yield start
    for front in started:
        front.close()


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token file with an admin and a user."""
    known = [
        {"name": "boss", "sha256": digest(ADMIN), "roles": ["infer", "admin"]},
        {"name": "arm", "sha256": digest(USER), "roles": ["infer"]},
    ]
    file = tmp_path_factory.mktemp("tokens") / "tokens.json"
    file.write_text(json.dumps({"tokens": known}))
    return file


def digest(token: str) -> str:
    """What the token file knows of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
