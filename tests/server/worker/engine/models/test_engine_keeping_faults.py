"""What goes wrong while models come and go: nothing is lost for it, and nothing tried for ever."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry
from tests.server.worker.engine.engines import PATIENCE, Started, corrupt, job, newer, states, until

from tectum_core.bundle import Repository
from tectum_core.golden import GoldenReport
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.models import loading
from tectum_server.worker.failure import Failure


def loads(registry: CollectorRegistry, name: str, outcome: str) -> float:
    labels = {"model": name, "outcome": outcome}
    return registry.get_sample_value("tectum_model_loads_total", labels) or 0.0


async def looked(engine: LocalEngine, times: int = 1) -> None:
    """Follow the repository as the watch does, so many times."""
    for _ in range(times):
        await engine._keeper._follower.look()


# ---------------------------------------------------------------- a repository that is away


async def test_a_repository_that_is_away_for_a_while_costs_no_model(
    started: Started, three: int, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await started("arm", "*", watch=0.01)
    await until(engine, lambda: set(states(engine)) == {"arm", "leg", "hand"})

    shutil.move(root, tmp_path / "away")
    async with asyncio.timeout(PATIENCE):
        while "cannot be looked at" not in caplog.text:
            await asyncio.sleep(0.01)
    (tmp_path / "away").rename(root)
    await looked(engine, 2)

    assert states(engine) == dict.fromkeys(("arm", "leg", "hand"), "ready")


async def test_a_folder_without_a_latest_is_no_model_that_has_gone(
    started: Started, three: int, root: Path
) -> None:
    engine = await started("arm", "*", watch=3600.0)

    (root / "leg" / "latest").rename(root / "leg" / "earliest")
    await looked(engine, 3)

    assert states(engine)["leg"] == "ready"


async def test_what_cannot_be_brought_back_for_now_is_tried_again_for_who_asks_next(
    started: Started, three: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await started("arm", "leg", "hand", model_memory_bytes=2 * three)
    locate, away = Repository.locate, True

    def located(self: Repository, name: str, version: str | None = None) -> tuple[Path, str]:
        if away:
            raise ConnectionError("the bucket is away")
        return locate(self, name, version)

    monkeypatch.setattr(Repository, "locate", located)
    engine.want("leg")
    await until(engine, lambda: states(engine)["leg"] == "evicted")
    away = False
    engine.want("leg")
    await until(engine, lambda: states(engine)["leg"] == "ready")

    assert (await engine.submit(job("leg"))).outputs


async def test_a_latest_that_names_what_is_not_there_is_spoken_of_once(
    started: Started, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await started("arm", watch=3600.0)

    (root / "arm" / "latest").write_text("e" * 16)
    await looked(engine, 3)

    said = [r for r in caplog.records if r.message == "a model cannot be followed"]
    assert len(said) == 1
    assert "has no version" in said[0].__dict__["reason"]
    assert states(engine) == {"arm": "ready"}


# ---------------------------------------------------------------- corrupt, and short of memory


async def test_a_corrupt_latest_of_what_has_made_room_is_tried_once(
    started: Started, three: int, root: Path, tmp_path: Path, registry: CollectorRegistry
) -> None:
    engine = await started("hand", "leg", "arm", watch=3600.0, model_memory_bytes=2 * three)
    await engine.load_model("leg", "", make_default=False)
    assert states(engine)["arm"] == "evicted"
    old, bad = engine.models["arm"].version, corrupt(root, tmp_path, "golden")

    engine.want("arm")
    await until(engine, lambda: states(engine)["arm"] == "ready")
    await looked(engine, 3)
    await engine.load_model("leg", "", make_default=False)
    engine.want("arm")
    await until(engine, lambda: states(engine)["arm"] == "ready")

    entry = engine.models["arm"]
    assert entry.version == old
    assert entry.rejection is not None
    assert entry.rejection.version == bad
    assert loads(registry, "arm", "rejected") == 1

    await engine.load_model("leg", "", make_default=False)
    good = newer(root, tmp_path)
    engine.want("arm")
    await until(engine, lambda: states(engine)["arm"] == "ready")
    assert (engine.models["arm"].version, engine.models["arm"].rejection) == (good, None)


async def test_the_latest_of_what_has_made_room_comes_when_it_is_asked_for(
    started: Started, three: int, root: Path, tmp_path: Path
) -> None:
    engine = await started("hand", "arm", "leg", watch=3600.0, model_memory_bytes=2 * three)
    assert states(engine)["arm"] == "evicted"
    latest = newer(root, tmp_path)

    engine.want("arm")
    await until(engine, lambda: states(engine)["arm"] == "ready")

    assert engine.models["arm"].version == latest


async def test_what_is_unloaded_while_it_was_to_be_brought_back_stays_away(
    started: Started, three: int, registry: CollectorRegistry
) -> None:
    engine = await started("arm", "leg", "hand", model_memory_bytes=2 * three)
    before = loads(registry, "leg", "loaded")

    async with engine._keeper._loading:
        unloading = asyncio.create_task(engine.unload_model("leg"))
        await asyncio.sleep(0)
        engine.want("leg")
    await unloading
    await asyncio.gather(*engine._keeper._tasks)

    assert "leg" not in engine.models
    assert loads(registry, "leg", "loaded") == before


async def test_two_models_that_take_turns_are_each_there_for_who_asked(
    started: Started, three: int
) -> None:
    engine = await started("arm", "leg", "hand", model_memory_bytes=2 * three)
    answered: list[str] = []

    async def caller(name: str) -> None:
        for _ in range(3):
            while True:
                try:
                    await engine.submit(job(name))
                except Failure:
                    engine.want(name)
                    await asyncio.sleep(max(0.1, engine.models[name].load_seconds))
                else:
                    answered.append(name)
                    break

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(caller("leg"))
        group.create_task(caller("hand"))

    assert sorted(answered) == ["hand"] * 3 + ["leg"] * 3


async def test_the_default_stays_although_it_failed(
    started: Started, three: int, root: Path
) -> None:
    version = Repository(root).latest("arm")
    shutil.rmtree(root / "arm")
    engine = await started(f"arm@{version}", f"leg@{version}", asked=("arm",))

    with pytest.raises(Failure, match="arm is the default model"):
        await engine.unload_model("arm")

    assert engine.wanted[0] == f"arm@{version}"


async def test_int8_is_counted_as_what_it_takes(started: Started, three: int) -> None:
    logging.getLogger("torchao").setLevel(logging.ERROR)
    engine = await started("arm", precision="int8")

    assert engine.models["arm"].memory_bytes < 0.6 * three


# ---------------------------------------------------------------- a device that is lost


async def test_a_device_that_is_lost_while_a_model_loads_rejects_none_and_ends_the_engine(
    started: Started, three: int, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, told = await started("arm"), list[str]()
    engine.on_change(lambda: told.append("changed"))

    def lose(predictor: Predictor) -> GoldenReport:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(loading, "check_golden", lose)
    monkeypatch.setattr(loading, "device_lost", lambda error, device: True)

    with pytest.raises(torch.AcceleratorError):
        await engine.load_model("leg", "", False)

    async with asyncio.timeout(PATIENCE):
        await engine.failed()
    assert (engine.models, told) == ({}, ["changed"])
    assert loads(registry, "leg", "rejected") == 0
    with pytest.raises(Failure, match="has failed and is being restarted"):
        await engine.submit(job())


async def test_an_error_of_a_device_that_goes_on_rejects_the_model(
    started: Started, three: int, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await started("arm")

    def refuse(predictor: Predictor) -> GoldenReport:
        raise torch.AcceleratorError("CUDA error: invalid configuration argument")

    monkeypatch.setattr(loading, "check_golden", refuse)

    with pytest.raises(Failure, match="leg does not run on cpu: CUDA error: invalid"):
        await engine.load_model("leg", "", False)

    assert loads(registry, "leg", "rejected") == 1
    assert states(engine)["arm"] == "ready"
