"""A model replaced while it serves, and an engine that breaks: nobody gets another's answer."""

import asyncio
import logging
import threading
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.server.worker.engine.engines import job, newer, vector

from tectum.v1 import errors_pb2
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.models import loading
from tectum_server.worker.engine.policy.cost import CostModel
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import Failure
from tectum_server.worker.metrics import EngineMetrics

# ---------------------------------------------------------------- versions


async def test_a_job_under_way_is_finished_by_the_version_that_took_it(
    engine: LocalEngine, root: Path, tmp_path: Path, bare: Predictor
) -> None:
    version, swapped, release = newer(root, tmp_path), asyncio.Event(), threading.Event()
    engine.on_change(swapped.set)
    engine._scheduler._threads.compute.submit(release.wait)
    jobs = [asyncio.create_task(engine.submit(job())) for _ in range(5)]
    await asyncio.sleep(0)  # all are admitted

    loading = asyncio.create_task(engine.load_model("arm", "", make_default=False))
    await swapped.wait()
    later = asyncio.create_task(engine.submit(job()))
    await asyncio.sleep(0)
    assert not loading.done()  # it waits until the old one is drained
    release.set()
    await loading

    assert {task.result().version for task in jobs} == {bare.bundle.version}
    assert (await later).version == version


async def test_a_job_is_computed_by_the_version_it_was_prepared_for_or_refused(
    engine: LocalEngine, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = engine.models["arm"].version, newer(root, tmp_path)
    prepared = replace(job(), version=old, request_id="r-1")
    assert (await engine.submit(prepared)).version == old
    await engine.load_model("arm", "", make_default=False)

    with caplog.at_level(logging.INFO), pytest.raises(Failure) as caught:
        await engine.submit(prepared)

    assert caught.value.reason == errors_pb2.ERROR_REASON_SPACE_MISMATCH
    assert caught.value.field == "options.model"
    assert old in caught.value.message
    assert new in caught.value.message
    assert [r.request_id for r in caplog.records if r.message.startswith("refused")] == ["r-1"]  # type: ignore[attr-defined]
    assert (await engine.submit(replace(prepared, version=new))).version == new
    assert (await engine.submit(replace(prepared, version=""))).version == new


async def test_jobs_prepared_for_a_version_wait_through_the_reload_and_are_its_own(
    engine: LocalEngine, root: Path, tmp_path: Path
) -> None:
    old = engine.models["arm"].version
    wanted = vector(await engine.submit(job()))
    newer(root, tmp_path)
    swapped, release = asyncio.Event(), threading.Event()
    engine.on_change(swapped.set)
    engine._scheduler._threads.compute.submit(release.wait)
    prepared = [replace(job(), version=old) for _ in range(3)]
    waiting = [asyncio.create_task(engine.submit(one)) for one in prepared]
    await asyncio.sleep(0)  # all are admitted

    loading = asyncio.create_task(engine.load_model("arm", "", make_default=False))
    await swapped.wait()
    release.set()
    await loading

    assert [task.result().version for task in waiting] == [old] * 3
    assert all(abs(vector(task.result()) - wanted).max() < 1e-5 for task in waiting)


# ---------------------------------------------------------------- what batches cost


async def test_a_version_loaded_again_keeps_what_is_known_of_its_costs(
    engine: LocalEngine,
) -> None:
    known = engine._scheduler.costs.known

    await engine.load_model("arm", "", make_default=False)

    assert known
    assert engine._scheduler.costs.known == known


async def test_costs_go_with_the_version_that_is_replaced(
    engine: LocalEngine, root: Path, tmp_path: Path
) -> None:
    old, new = engine.models["arm"].version, newer(root, tmp_path)

    await engine.load_model("arm", "", make_default=False)

    versions = {key[0] for key in engine._scheduler.costs.known if isinstance(key, tuple)}
    assert versions == {f"arm@{new}"}
    assert old != new


async def test_what_warming_up_took_is_noted_on_the_loops_own_thread(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    observe = CostModel.observe

    def noted(self: CostModel, key: Hashable, items: int, took_ms: float) -> None:
        threads.add(threading.get_ident())
        observe(self, key, items, took_ms)

    monkeypatch.setattr(CostModel, "observe", noted)

    await engine.load_model("arm", "", make_default=False)

    assert threads == {threading.get_ident()}


# ---------------------------------------------------------------- an engine that breaks


async def test_an_engine_whose_scheduler_fails_announces_no_model_and_says_so(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[set[str]] = []
    engine.on_change(lambda: heard.append(set(engine.models)))
    monkeypatch.setattr(engine._scheduler.costs, "observe", broken)

    with pytest.raises(Failure) as caught:
        await engine.submit(job())

    await engine.failed()
    assert caught.value.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert heard == [set()]
    with pytest.raises(Failure, match="has failed"):
        await engine.submit(job())


def broken(*_: object) -> None:
    raise RuntimeError("dictionary changed size during iteration")


async def test_a_model_that_the_device_cannot_run_is_rejected_in_one_line(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, bare: Predictor
) -> None:
    def warm_up(*_: object) -> None:
        raise RuntimeError("out of memory\nand a page of advice")

    monkeypatch.setattr(loading, "warm_up", warm_up)

    with pytest.raises(Failure) as caught:
        await engine.load_model("arm", "", make_default=False)

    assert caught.value.reason == errors_pb2.ERROR_REASON_BUNDLE_REJECTED
    assert caught.value.message == "arm does not run on cpu: out of memory"
    assert (await engine.submit(job())).version == bare.bundle.version


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "gpu"}, "device 'gpu': "),
        ({"device": "cuda:99"}, "device 'cuda:99': "),
        ({"repository": "nowhere://models"}, "repository 'nowhere://models': "),
    ],
)
async def test_a_device_or_a_repository_that_is_none_is_named_in_one_line(
    root: Path, changes: dict[str, str], words: str
) -> None:
    settings = EngineSettings(**{"repository": str(root), "models": ("arm",), **changes})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=words) as caught:
        LocalEngine(settings, EngineMetrics(CollectorRegistry()))

    assert "\n" not in str(caught.value)
