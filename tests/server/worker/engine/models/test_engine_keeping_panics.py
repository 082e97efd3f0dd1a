"""Bundles that make a library panic, and faults that nobody foresaw: they are told, and no more."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.engine.engines import Started, job, newer, panicking, states, until

from tectum.v1 import errors_pb2
from tectum_core.bundle import Repository
from tectum_server.worker.engine.models.loading import Loader
from tectum_server.worker.failure import Failure

CHARSMAPS = pytest.mark.parametrize(
    "charsmap", ["////fw==", "AAAAAA=="], ids=["as it is read", "as it reads a golden text"]
)


class Panic(BaseException):
    """What a library that is written in Rust may raise."""


@CHARSMAPS
async def test_a_version_that_makes_a_library_panic_is_rejected_and_the_next_one_followed(
    started: Started,
    root: Path,
    tmp_path: Path,
    full_folder: Path,
    charsmap: str,
    registry: CollectorRegistry,
) -> None:
    engine = await started("arm", watch=0.01)

    bad = panicking(root, tmp_path, full_folder, charsmap)
    await until(engine, lambda: engine.models["arm"].rejection is not None)
    for _ in range(3):
        await engine._keeper._follower.look()

    rejection = engine.models["arm"].rejection
    assert rejection is not None
    assert rejection.version == bad
    tried = {"model": "arm", "outcome": "rejected"}
    assert registry.get_sample_value("tectum_model_loads_total", tried) == 1.0
    assert registry.get_sample_value("tectum_model_rejected", {"model": "arm"}) == 1.0
    assert (await engine.submit(job())).outputs
    good = newer(root, tmp_path)
    await until(engine, lambda: engine.models["arm"].version == good)


@CHARSMAPS
async def test_an_admin_who_loads_what_makes_a_library_panic_is_told_so(
    started: Started, root: Path, tmp_path: Path, full_folder: Path, charsmap: str
) -> None:
    engine = await started("arm")
    panicking(root, tmp_path, full_folder, charsmap)

    with pytest.raises(Failure, match=r"^arm: .*tokenizer") as caught:
        await engine.load_model("arm", "", make_default=False)

    assert caught.value.reason == errors_pb2.ERROR_REASON_BUNDLE_REJECTED
    assert (await engine.submit(job())).outputs


async def test_at_the_start_a_panic_stops_nobody_else(
    started: Started, root: Path, tmp_path: Path, full_folder: Path, bare_folder: Path
) -> None:
    panicking(root, tmp_path, full_folder, "////fw==")
    Repository(root).publish(bare_folder, "leg")

    engine = await started("leg", "*")

    assert states(engine) == {"arm": "failed", "leg": "ready"}


async def test_following_that_breaks_off_is_told_loudly_and_taken_up_again(
    started: Started,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bring, left = Repository.latest, 3

    def latest(self: Repository, name: str) -> str:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Panic("inside")
        return bring(self, name)

    engine = await started("arm", watch=0.01)
    with caplog.at_level(logging.ERROR):
        monkeypatch.setattr(Repository, "latest", latest)
        version = newer(root, tmp_path)
        await until(engine, lambda: engine.models["arm"].version == version)

    said = [r for r in caplog.records if r.message.startswith("following the repository broke off")]
    assert len(said) == 3
    assert all(r.levelno == logging.ERROR and r.exc_info for r in said)


async def test_what_cannot_be_brought_back_for_an_unforeseen_fault_is_asked_for_again(
    started: Started,
    three: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = await started("arm", "leg", "hand", model_memory_bytes=2 * three)

    async def panics(*_: object) -> None:
        raise Panic("inside")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(Loader, "locate", panics)
        engine.want("leg")
        await until(engine, lambda: states(engine)["leg"] == "evicted")
        await asyncio.sleep(0)  # its end is told in the next turn of the loop
    engine.want("leg")
    await until(engine, lambda: states(engine)["leg"] == "ready")

    assert "a task that sees to models has failed" in caplog.text
