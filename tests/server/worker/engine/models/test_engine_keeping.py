"""Models that come and go: by a repository that is watched, and by memory that is short."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.engine.engines import PATIENCE, Started, corrupt, job, newer, states, until

from tectum.v1 import errors_pb2
from tectum_core.bundle import Repository
from tectum_server.worker.failure import Failure

# ---------------------------------------------------------------- memory


async def test_what_a_model_takes_is_what_its_configuration_says(
    started: Started, three: int, registry: CollectorRegistry
) -> None:
    engine = await started("arm")
    loaded = engine._keeper._shelf.find("arm")
    assert loaded is not None
    assert loaded.loaded is not None
    model = loaded.loaded.predictor.model
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))

    assert engine.models["arm"].memory_bytes == three == held
    found = registry.get_sample_value("tectum_model_memory_bytes", {"model": "arm"})
    assert found == held


async def test_the_longest_unused_makes_room_and_comes_back_for_who_asks(
    started: Started, three: int, registry: CollectorRegistry
) -> None:
    engine = await started("arm", "leg", model_memory_bytes=2 * three)

    await engine.load_model("hand", "", make_default=False)
    assert states(engine) == {"arm": "ready", "leg": "evicted", "hand": "ready"}
    with pytest.raises(Failure, match="no model named 'leg' is loaded; there are: arm, hand"):
        await engine.submit(job("leg"))
    engine.want("leg")
    assert states(engine)["leg"] == "loading"
    await until(engine, lambda: states(engine)["leg"] == "ready")

    assert states(engine) == {"arm": "ready", "leg": "ready", "hand": "evicted"}
    assert (await engine.submit(job("leg"))).outputs
    counted = {
        outcome: registry.get_sample_value(
            "tectum_model_loads_total", {"model": "leg", "outcome": outcome}
        )
        for outcome in ("loaded", "evicted")
    }
    assert counted == {"loaded": 2.0, "evicted": 1.0}
    assert registry.get_sample_value("tectum_model_memory_bytes", {"model": "hand"}) == 0


async def test_asking_again_for_what_is_coming_loads_it_once(
    started: Started, three: int, registry: CollectorRegistry
) -> None:
    engine = await started("arm", "leg", "hand", model_memory_bytes=2 * three)
    for _ in range(5):
        engine.want("leg")
    engine.want("arm")
    engine.want("wing")

    await until(engine, lambda: states(engine)["leg"] == "ready")

    loads = {"model": "leg", "outcome": "loaded"}
    assert registry.get_sample_value("tectum_model_loads_total", loads) == 2.0


async def test_who_is_at_work_is_waited_for(started: Started, three: int) -> None:
    engine = await started("arm", "leg", model_memory_bytes=2 * three)
    slot = engine._keeper._shelf.find("leg")
    assert slot is not None
    assert slot.loaded is not None

    with slot.loaded.in_flight:
        loading = asyncio.create_task(engine.load_model("hand", "", make_default=False))
        await until(engine, lambda: states(engine)["leg"] == "evicted")
        await asyncio.sleep(0)
        assert not loading.done()
    await loading

    assert states(engine) == {"arm": "ready", "leg": "evicted", "hand": "ready"}


async def test_what_fits_in_beside_nobody_is_refused_with_its_size(
    started: Started, three: int, root: Path, tmp_path: Path
) -> None:
    engine = await started("arm", model_memory_bytes=three + 1)
    newer(root, tmp_path)

    with pytest.raises(Failure, match=f"hand takes {three} bytes; model_memory_bytes is") as caught:
        await engine.load_model("hand", "", make_default=False)
    assert caught.value.reason == errors_pb2.ERROR_REASON_BUNDLE_REJECTED
    with pytest.raises(Failure, match="arm must stay in memory meanwhile"):
        await engine.load_model("arm", "", make_default=False)

    assert (await engine.submit(job())).outputs


async def test_what_cannot_come_back_has_failed_and_says_why(
    started: Started, three: int, root: Path
) -> None:
    engine = await started("arm", "leg", "hand", model_memory_bytes=2 * three)
    shutil.rmtree(root / "leg")

    engine.want("leg")
    await until(engine, lambda: states(engine)["leg"] == "failed")

    rejection = engine.models["leg"].rejection
    assert rejection is not None
    assert "leg has no version" in rejection.why
    engine.want("leg")
    assert states(engine)["leg"] == "failed"  # and is not tried for every call
    await engine.unload_model("leg")
    assert "leg" not in engine.models


async def test_the_next_engine_serves_what_has_made_room_too(started: Started, three: int) -> None:
    first = await started("arm", "leg", "hand", model_memory_bytes=2 * three)
    first.want("leg")
    await until(first, lambda: states(first)["leg"] == "ready")
    assert states(first) == {"arm": "ready", "leg": "ready", "hand": "evicted"}

    second = await started(*first.wanted, asked=("arm",), model_memory_bytes=2 * three)

    assert states(second) == states(first)


# ---------------------------------------------------------------- watching


async def test_a_newer_version_serves_once_the_repository_has_it(
    started: Started, root: Path, tmp_path: Path
) -> None:
    engine = await started("arm", watch=0.01)

    version = newer(root, tmp_path)
    await until(engine, lambda: engine.models["arm"].version == version)

    assert (await engine.submit(job())).version == version


async def test_a_version_named_at_the_start_stays(
    started: Started, root: Path, tmp_path: Path, bare_folder: Path
) -> None:
    old = Repository(root).latest("arm")
    engine = await started(f"arm@{old}", "*", watch=0.01)

    newer(root, tmp_path)
    Repository(root).publish(bare_folder, "leg")
    await until(engine, lambda: "leg" in engine.models)

    assert engine.models["arm"].version == old


@pytest.mark.parametrize("what", ["config", "golden", "weights"])
async def test_a_corrupt_version_leaves_the_old_one_serving_and_is_tried_once(
    started: Started,
    root: Path,
    tmp_path: Path,
    what: str,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = await started("arm", watch=0.01)
    before = engine.models["arm"]

    version = corrupt(root, tmp_path, what)
    await until(engine, lambda: engine.models["arm"].rejection is not None)
    for _ in range(3):  # looks
        await engine._keeper._follower.look()

    now = engine.models["arm"]
    assert (now.version, now.state) == (before.version, "ready")
    assert now.rejection is not None
    assert now.rejection.version == version
    assert (await engine.submit(job())).version == before.version
    tried = {"model": "arm", "outcome": "rejected"}
    assert registry.get_sample_value("tectum_model_loads_total", tried) == 1.0
    assert registry.get_sample_value("tectum_model_rejected", {"model": "arm"}) == 1.0
    said = [r for r in caplog.records if r.message == "a bundle was rejected"]
    assert [r.__dict__["version"] for r in said] == [version]

    good = newer(root, tmp_path)
    await until(engine, lambda: engine.models["arm"].version == good)
    assert engine.models["arm"].rejection is None
    assert registry.get_sample_value("tectum_model_rejected", {"model": "arm"}) == 0.0


async def test_moving_latest_back_settles_what_was_rejected(
    started: Started, root: Path, tmp_path: Path, bare_folder: Path
) -> None:
    engine = await started("arm", watch=0.01)
    corrupt(root, tmp_path, "golden")
    await until(engine, lambda: engine.models["arm"].rejection is not None)

    Repository(root).publish(bare_folder, "arm")
    await until(engine, lambda: engine.models["arm"].rejection is None)

    assert (await engine.submit(job())).outputs


async def test_with_everything_models_come_and_go_with_the_repository(
    started: Started, root: Path, bare_folder: Path, tmp_path: Path
) -> None:
    Repository(root).publish(bare_folder, "leg")
    engine = await started("arm", "*", watch=0.01)
    assert states(engine) == {"arm": "ready", "leg": "ready"}

    Repository(root).publish(bare_folder, "hand")
    await until(engine, lambda: "hand" in engine.models)
    shutil.rmtree(root / "leg")
    await until(engine, lambda: "leg" not in engine.models)

    assert states(engine) == {"arm": "ready", "hand": "ready"}
    assert engine.models["arm"].default


def damaged_card(folder: Path) -> None:
    (folder / (folder / "latest").read_text().strip() / "README.md").write_text("?")


def no_text(folder: Path) -> None:
    (folder / "latest").write_bytes(b"\xff\xfe\x00")


def a_folder(folder: Path) -> None:
    (folder / "latest").unlink()
    (folder / "latest").mkdir()


@pytest.mark.parametrize("harm", [damaged_card, no_text, a_folder])
async def test_at_the_start_one_corrupt_bundle_among_everything_stops_nobody(
    started: Started,
    root: Path,
    tmp_path: Path,
    harm: Callable[[Path], None],
    registry: CollectorRegistry,
) -> None:
    newer(root, tmp_path)
    shutil.copytree(root / "arm", root / "leg")
    harm(root / "leg")

    engine = await started("arm", "*")

    assert states(engine) == {"arm": "ready", "leg": "failed"}
    rejection = engine.models["leg"].rejection
    assert rejection is not None
    assert rejection.why.startswith("leg: ")
    assert not engine.models["leg"].description
    assert registry.get_sample_value("tectum_model_rejected", {"model": "leg"}) == 1.0


@pytest.mark.parametrize("harm", [no_text, a_folder])
async def test_one_latest_that_cannot_be_read_keeps_no_other_model_from_being_followed(
    started: Started,
    root: Path,
    tmp_path: Path,
    bare_folder: Path,
    harm: Callable[[Path], None],
    registry: CollectorRegistry,
) -> None:
    Repository(root).publish(bare_folder, "leg")
    engine = await started("arm", "*", watch=0.01)
    before = engine.models["leg"].version

    harm(root / "leg")
    version = newer(root, tmp_path)
    await until(
        engine,
        lambda: (
            engine.models["arm"].version == version and engine.models["leg"].rejection is not None
        ),
    )

    rejection = engine.models["leg"].rejection
    assert rejection is not None
    assert rejection.why.startswith("leg: `latest` ")
    assert (engine.models["leg"].version, engine.models["leg"].state) == (before, "ready")
    assert registry.get_sample_value("tectum_model_rejected", {"model": "leg"}) == 1.0
    shutil.rmtree(root / "leg")
    Repository(root).publish(bare_folder, "leg")
    await until(engine, lambda: engine.models["leg"].rejection is None)


async def test_an_admin_does_not_set_apart_what_follows_the_repository(
    started: Started, root: Path, tmp_path: Path, bare_folder: Path
) -> None:
    old = Repository(root).latest("arm")
    Repository(root).publish(bare_folder, "leg")
    engine = await started("arm", watch=3600.0)
    version = newer(root, tmp_path)

    with pytest.raises(Failure, match="arm follows the repository") as caught:
        await engine.load_model("arm", old, make_default=False)
    assert caught.value.field == "version"
    with pytest.raises(Failure, match="arm follows the repository"):
        await engine.unload_model("arm")
    await engine.load_model("arm", "", make_default=False)  # look now
    await engine.load_model("leg", "", make_default=False)  # an admin's own
    await engine.unload_model("leg")

    assert engine.models["arm"].version == version
    assert set(engine.models) == {"arm"}


async def test_a_repository_that_cannot_be_looked_at_is_spoken_of_once(
    started: Started,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks = 0

    def away(_: object) -> list[str]:
        nonlocal looks
        looks += 1
        raise ConnectionError("the bucket is away")

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(Repository, "names", away)
        engine = await started("arm", watch=0.001)
        async with asyncio.timeout(PATIENCE):
            while looks < 5:
                await asyncio.sleep(0.001)
    version = newer(root, tmp_path)
    with caplog.at_level(logging.INFO):
        await until(engine, lambda: engine.models["arm"].version == version)

    said = [r.message for r in caplog.records if "looked at" in r.message]
    assert said == ["the repository cannot be looked at", "the repository can be looked at again"]


async def test_a_model_that_cannot_be_fetched_leaves_the_others_followed(
    started: Started,
    root: Path,
    tmp_path: Path,
    bare_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = await started("arm", "*", watch=3600.0)
    Repository(root).publish(bare_folder, "aaa")
    version, locate = newer(root, tmp_path), Repository.locate

    def broken(self: Repository, name: str, version: str | None = None) -> tuple[Path, str]:
        if name == "aaa":
            raise ConnectionResetError("half way")
        return locate(self, name, version)

    monkeypatch.setattr(Repository, "locate", broken)
    await engine._keeper._follower.look()

    assert engine.models["arm"].version == version
    assert "aaa" not in engine.models
