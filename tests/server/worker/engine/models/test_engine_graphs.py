"""Models that embed by recorded graphs, from loading to unloading, on a device that is late."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from tests.bundles import write_bare
from tests.late_device import LateDevice
from tests.server.worker.engine.engines import Started, job, newer

from tectum.v1 import model_pb2
from tectum_core.bundle import Repository, read_bundle
from tectum_core.golden import GoldenMismatch, GoldenReport
from tectum_core.launching import graph_sizes
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.models import graphs, loading
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Item, ItemOutput, Job
from tectum_server.worker.metrics import EngineMetrics

PROGRAMS = 2  # of a bare model: tokens and pooled vectors of pictures


def told(engine: LocalEngine, name: str = "arm") -> model_pb2.Model:
    return model_pb2.Model.FromString(engine.models[name].description)


async def vectors(engine: LocalEngine, asked: Job) -> list[np.ndarray]:
    outputs = (await engine.submit(asked)).outputs
    return [output.arrays[0] for output in outputs if isinstance(output, ItemOutput)]


def many(count: int) -> Job:
    """Pictures, every other one of another size."""
    one = job()
    draw = np.random.default_rng(0)
    side = one.items[0].arrays[0].shape[0]
    pictures = [
        draw.integers(0, 256, (side + 7 * (place % 2), side, 3), np.uint8) for place in range(count)
    ]
    return replace(one, items=tuple(Item((picture,)) for picture in pictures))


# ---------------------------------------------------------------- serving


async def test_a_model_is_served_by_its_graphs_and_says_so(
    started: Started, late: LateDevice, bare_folder: Path
) -> None:
    engine = await started("arm")
    replays = late.replays

    found = await vectors(engine, many(5))

    plain = Predictor(read_bundle(bare_folder, "arm"))
    pictures = [item.arrays[0] for item in many(5).items]
    np.testing.assert_array_equal(
        found, np.concatenate([plain.embed_images([one], "pooled") for one in pictures])
    )
    assert late.replays == replays + 5  # batches of one, as the engine was started
    assert told(engine).numerics.engine.endswith("/eager+graphs")
    assert told(engine).golden.min_cosine > 0.9999


async def test_without_such_a_device_a_model_says_nothing_of_graphs(started: Started) -> None:
    engine = await started("arm")

    assert told(engine).numerics.engine.endswith("/eager")


async def test_an_operator_can_do_without_graphs(
    started: Started, late: LateDevice, bare_folder: Path
) -> None:
    engine = await started("arm", graphs=False)

    found = await asyncio.gather(*(vectors(engine, many(3)) for _ in range(3)))

    plain = Predictor(read_bundle(bare_folder, "arm"))
    wanted = [plain.embed_images([item.arrays[0]], "pooled")[0] for item in many(3).items]
    np.testing.assert_array_equal(found, [wanted] * 3)
    assert (late.pools, late.replays, late.held) == ([], 0, 0)
    assert told(engine).numerics.engine.endswith("/eager")
    assert engine.models["arm"].memory_bytes == await _weights(bare_folder)


async def test_all_graphs_are_there_before_the_model_serves(
    started: Started, late: LateDevice
) -> None:
    engine = await started("arm")
    recorded = late.pools[0].recorded

    await vectors(engine, many(3))

    assert recorded == late.pools[0].recorded == PROGRAMS * len(graph_sizes(1))
    assert len(late.pools) == 1


async def test_graphs_that_do_not_reproduce_the_bundle_are_not_served(
    started: Started, late: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mismatch(predictor: Predictor) -> GoldenReport:
        raise GoldenMismatch("pooled is another")

    monkeypatch.setattr(graphs, "check_golden", mismatch)
    engine = await started("arm")
    replays = late.replays

    assert len(await vectors(engine, many(2))) == 2

    assert late.replays == replays
    assert told(engine).numerics.engine.endswith("/eager")
    assert late.pools[0].closed


async def test_a_model_of_which_nothing_can_be_recorded_is_served_without(
    started: Started, late: LateDevice
) -> None:
    def refuse() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    late.before_capture = refuse
    engine = await started("arm")

    assert len(await vectors(engine, many(2))) == 2

    assert told(engine).numerics.engine.endswith("/eager")
    assert late.held == 0


async def test_a_device_that_keeps_by_thread_is_warmed_up_on_the_one_that_computes(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def there(predictor: Predictor, most: int, do: Callable[[Callable[[], object]], None]) -> None:
        do(lambda: ran.append(threading.current_thread().name))

    monkeypatch.setattr(loading, "warm_up_there", there)
    await started("arm")
    assert ran == []
    monkeypatch.setattr(loading, "keeps_by_thread", lambda device: True)

    await started("arm")

    assert ran == ["compute_0"]


# ---------------------------------------------------------------- coming and going


async def test_a_version_that_is_replaced_frees_its_graphs(
    started: Started, late: LateDevice, root: Path, tmp_path: Path
) -> None:
    engine = await started("arm")
    newer(root, tmp_path)

    await engine.load_model("arm", "", False)

    assert [pool.closed for pool in late.pools] == [True, False]
    replays = late.replays
    assert len(await vectors(engine, job())) == 1
    assert late.replays == replays + 1


async def test_a_model_that_is_unloaded_holds_nothing_on_the_device(
    started: Started, late: LateDevice, three: int
) -> None:
    engine = await started("arm", "leg")
    held = late.held

    await engine.unload_model("leg")
    gc.collect()

    assert [pool.closed for pool in late.pools] == [False, True]
    assert late.held == held // 2
    assert len(await vectors(engine, job())) == 1


async def test_what_is_under_way_is_answered_before_its_graphs_are_freed(
    started: Started, late: LateDevice, root: Path, tmp_path: Path
) -> None:
    engine = await started("arm")
    newer(root, tmp_path)

    asked = [asyncio.create_task(vectors(engine, many(4))) for _ in range(3)]
    await engine.load_model("arm", "", False)

    assert [len(found) for found in await asyncio.gather(*asked)] == [4, 4, 4]


async def test_two_models_are_each_answered_by_their_own_graphs(
    started: Started, late: LateDevice, root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    Repository(root).publish(_written(other, 7), "leg")
    engine = await started("arm", "leg")

    arm, leg = await asyncio.gather(
        vectors(engine, many(6)), vectors(engine, replace(many(6), model="leg"))
    )

    plain = Predictor(read_bundle(other, "leg"))
    for found, item in zip(leg, many(6).items, strict=True):
        np.testing.assert_array_equal(found, plain.embed_images([item.arrays[0]], "pooled")[0])
    assert not np.array_equal(arm, leg)


def _written(folder: Path, seed: int) -> Path:
    write_bare(folder, seed)
    return folder


async def test_what_fails_while_it_is_warmed_up_holds_nothing(
    started: Started, late: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(predictor: Predictor, max_batch: int) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(loading, "warm_up", exhausted)

    with pytest.raises(Failure, match="out of memory"):
        await started("arm")

    assert late.pools[0].closed


# ---------------------------------------------------------------- memory


def slots_of(late: LateDevice) -> int:
    """What one model's graphs take on the device."""
    return 1000 * PROGRAMS + late.held * 3 // 5  # of five rooms, two are on the host


async def test_graphs_count_as_the_models_memory(
    started: Started, late: LateDevice, bare_folder: Path
) -> None:
    engine = await started("arm")

    weights = await _weights(bare_folder)
    assert engine.models["arm"].memory_bytes == weights + slots_of(late)


async def _weights(folder: Path) -> int:
    return loading._memory(Predictor(read_bundle(folder, "arm")))


async def test_where_graphs_have_no_room_a_model_is_served_without(
    started: Started, late: LateDevice, bare_folder: Path
) -> None:
    weights = await _weights(bare_folder)

    engine = await started("arm", model_memory_bytes=weights + 500)

    assert engine.models["arm"].memory_bytes == weights
    assert told(engine).numerics.engine.endswith("/eager")
    assert late.pools[0].closed
    assert len(await vectors(engine, job())) == 1


async def test_another_model_makes_room_for_graphs(
    started: Started, late: LateDevice, bare_folder: Path, three: int
) -> None:
    weights = await _weights(bare_folder)
    one = await started("arm")
    each = one.models["arm"].memory_bytes

    engine = await started("arm", "leg", model_memory_bytes=2 * each)
    assert [engine.models[name].state for name in ("arm", "leg")] == ["ready", "ready"]
    await engine.load_model("hand", "", False)

    states = {name: entry.state for name, entry in engine.models.items()}
    assert states == {"arm": "ready", "leg": "evicted", "hand": "ready"}
    assert engine.models["hand"].memory_bytes == each > weights


# ---------------------------------------------------------------- on a GPU, and the same here

ON = [
    "late",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


@pytest.fixture
async def on(
    request: pytest.FixtureRequest, root: Path
) -> AsyncIterator[Callable[[int], Awaitable[LocalEngine]]]:
    """Starts an engine with so large batches on a device, late or a GPU."""
    device = "cpu" if request.param == "late" else "cuda"
    if device == "cpu":
        request.getfixturevalue("late")
    engines: list[LocalEngine] = []

    async def start(max_batch: int) -> LocalEngine:
        settings = EngineSettings(str(root), ("arm",), device=device, max_batch=max_batch)
        engines.append(LocalEngine(settings, EngineMetrics(CollectorRegistry())))
        await engines[-1].start()
        assert told(engines[-1]).numerics.engine.endswith("/eager+graphs")
        return engines[-1]

    yield start
    for engine in engines:
        await engine.close()


@pytest.mark.parametrize("on", ON, indirect=True)
async def test_full_batches_behind_each_other_are_each_answered_from_their_own(
    on: Callable[[int], Awaitable[LocalEngine]], bare_folder: Path
) -> None:
    engine, plain = await on(4), Predictor(read_bundle(bare_folder, "arm"))
    wanted = [plain.embed_images([item.arrays[0]], "pooled")[0] for item in many(12).items]

    found = await asyncio.gather(*(vectors(engine, many(12)) for _ in range(8)))

    for rows in found:
        np.testing.assert_allclose(rows, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("on", ON, indirect=True)
async def test_who_asks_while_another_version_is_recorded_is_answered_as_ever(
    on: Callable[[int], Awaitable[LocalEngine]], root: Path, tmp_path: Path, bare_folder: Path
) -> None:
    engine, plain = await on(4), Predictor(read_bundle(bare_folder, "arm"))
    wanted = [plain.embed_images([item.arrays[0]], "pooled")[0] for item in many(12).items]
    first = engine.models["arm"].version
    newer(root, tmp_path)

    coming = asyncio.create_task(engine.load_model("arm", "", False))
    answered = 0
    while not coming.done():
        result = await engine.submit(many(12))
        if result.version == first:
            rows = [output.arrays[0] for output in result.outputs if isinstance(output, ItemOutput)]
            np.testing.assert_allclose(rows, wanted, rtol=1e-3, atol=1e-3)
            answered += 1
    await coming

    assert answered > 0
    assert engine.models["arm"].version != first
    assert told(engine).numerics.engine.endswith("/eager+graphs")


@pytest.mark.parametrize("on", ON, indirect=True)
async def test_of_an_invariant_engine_the_bits_are_the_same_whatever_else_is_asked(
    on: Callable[[int], Awaitable[LocalEngine]],
) -> None:
    engine = await on(1)
    alone = await vectors(engine, many(6))

    together = await asyncio.gather(*(vectors(engine, many(6)) for _ in range(8)))

    for found in together:
        np.testing.assert_array_equal(found, alone)
