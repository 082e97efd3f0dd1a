"""An engine that replaces one: what served last, as far as it is still there."""

import logging
import shutil
import uuid
from pathlib import Path

import fsspec
import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.engine.engines import job, newer

from tectum.v1 import errors_pb2
from tectum_core.bundle import Repository
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import Failure
from tectum_server.worker.metrics import EngineMetrics


def replacing(
    root: Path | str, models: tuple[str, ...], asked: tuple[str, ...] | None
) -> LocalEngine:
    settings = EngineSettings(str(root), models, max_batch=1, asked=asked)
    return LocalEngine(settings, EngineMetrics(CollectorRegistry()))


def serving(engine: LocalEngine) -> dict[str, tuple[str, bool]]:
    ready = {name: entry for name, entry in engine.models.items() if entry.state == "ready"}
    return {name: (entry.version, entry.default) for name, entry in ready.items()}


def lost(engine: LocalEngine) -> dict[str, tuple[str, bool]]:
    """What could not be loaded: why, and whether it is the default."""
    failed = {name: entry for name, entry in engine.models.items() if entry.state == "failed"}
    whys = {n: entry.rejection.why if entry.rejection else "" for n, entry in failed.items()}
    return {name: (whys[name], entry.default) for name, entry in failed.items()}


@pytest.fixture
def two(root: Path, bare_folder: Path) -> str:
    """`leg` beside `arm`; gives the version of both."""
    return Repository(root).publish(bare_folder, "leg")


async def test_for_a_version_that_is_gone_the_one_asked_for_stands_in(
    root: Path, tmp_path: Path, two: str, caplog: pytest.LogCaptureFixture
) -> None:
    latest = newer(root, tmp_path)
    shutil.rmtree(root / "arm" / two)
    engine = replacing(root, (f"arm@{two}", f"leg@{two}"), ("arm",))

    await engine.start()

    assert serving(engine) == {"arm": (latest, True), "leg": (two, False)}
    assert engine.wanted == (f"arm@{latest}", f"leg@{two}")
    assert (await engine.submit(job("arm"))).version == latest
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.__dict__["model"] == f"arm@{two}"
    assert "has no version" in record.__dict__["reason"]
    await engine.close()


async def test_a_version_that_is_there_is_kept_whatever_was_asked_for(
    root: Path, tmp_path: Path, two: str
) -> None:
    newer(root, tmp_path)
    engine = replacing(root, (f"arm@{two}",), ("arm", "leg"))

    await engine.start()

    assert serving(engine) == {"arm": (two, True)}
    await engine.close()


async def test_a_model_that_is_gone_altogether_takes_no_other_with_it(
    root: Path, two: str, bare_folder: Path
) -> None:
    shutil.rmtree(root / "arm")
    engine = replacing(root, (f"arm@{two}", f"leg@{two}"), ("arm",))

    await engine.start()

    assert serving(engine) == {"leg": (two, False)}  # and is no default: its spaces are others
    assert lost(engine) == {"arm": ("no bundle named 'arm' here; there are: leg", True)}
    assert engine.wanted == (f"arm@{two}", f"leg@{two}")  # the next engine tries again
    Repository(root).publish(bare_folder, "arm")
    await engine.load_model("arm", "", make_default=False)
    assert serving(engine) == {"leg": (two, False), "arm": (two, True)}
    assert not lost(engine)
    assert engine.wanted == (f"arm@{two}", f"leg@{two}")
    await engine.close()


async def test_what_is_gone_is_no_longer_tried_once_an_admin_unloads_it(
    root: Path, two: str
) -> None:
    shutil.rmtree(root / "leg")
    engine = replacing(root, (f"arm@{two}", f"leg@{two}"), ("arm",))
    await engine.start()
    before = engine.wanted

    await engine.unload_model("leg")

    assert before == (f"arm@{two}", f"leg@{two}")
    assert engine.wanted == (f"arm@{two}",)
    with pytest.raises(Failure, match="no model named 'leg' is loaded"):
        await engine.unload_model("leg")
    await engine.close()


async def test_where_nothing_loads_nothing_serves(root: Path, two: str) -> None:
    shutil.rmtree(root / "arm")
    engine = replacing(root, (f"arm@{two}",), ("arm",))

    with pytest.raises(Failure) as caught:
        await engine.start()

    assert caught.value.reason == errors_pb2.ERROR_REASON_MODEL_NOT_FOUND
    assert engine.wanted == ()
    await engine.close()


async def test_an_engine_that_is_the_first_loads_all_or_none(root: Path, two: str) -> None:
    shutil.rmtree(root / "leg")
    engine = replacing(root, ("arm", "leg"), None)

    with pytest.raises(Failure, match="no bundle named 'leg'"):
        await engine.start()

    assert not engine.models
    await engine.close()


async def test_what_was_fetched_serves_again_without_the_remote(
    tmp_path: Path, bare_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = f"memory://{uuid.uuid4().hex}"
    version = Repository(url).publish(bare_folder, "arm")
    first = replacing(url, ("arm",), None)
    await first.start()
    files, path = fsspec.core.url_to_fs(url)
    files.rm(path, recursive=True)

    second = replacing(url, first.wanted, ("arm",))
    await second.start()

    assert serving(second) == serving(first) == {"arm": (version, True)}
    await first.close()
    await second.close()
