"""Shared memory comes back whatever happens, and engines go and come."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.server.worker.linked import (
    IMAGE,
    LATER,
    MEMORY,
    HeldEngine,
    Rig,
    failure,
    job,
    used_after_all,
)

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Item, ItemOutput, Priority
from tectum_server.worker.link.remote import RemoteEngine
from tectum_server.worker.link.served import serve_engine

# ---------------------------------------------------------------- memory


async def test_memory_is_free_again_when_all_is_answered(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    tasks = [asyncio.create_task(rig.remote.submit(job(IMAGE, LATER))) for _ in range(20)]
    for _ in tasks:
        await engine.begun.get()
    assert rig.used >= 20 * (IMAGE.nbytes + LATER.nbytes)

    engine.free.set()
    results = await asyncio.gather(*tasks)

    assert rig.used == 0
    for result in results:
        output = result.outputs[0]
        assert isinstance(output, ItemOutput)
        assert np.array_equal(output.arrays[0], IMAGE)
        assert np.array_equal(output.arrays[1], LATER)


async def test_answers_memory_is_given_back_again_and_again(tmp_path: Path) -> None:
    rig, engine = Rig(tmp_path / "socket", MEMORY, 64 * 1024), HeldEngine()
    engine.free.set()
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()
    pixels = np.arange(20_000, dtype=np.int32).view(np.uint8)[:30_000]  # two fit at once

    for _ in range(3):
        results = await asyncio.gather(*(rig.remote.submit(job(pixels)) for _ in range(10)))
        for result in results:
            output = result.outputs[0]
            assert isinstance(output, ItemOutput)
            assert np.array_equal(output.arrays[0], pixels)
    await rig.close()


async def test_an_answer_that_nobody_waits_for_takes_no_memory(tmp_path: Path) -> None:
    rig, engine = Rig(tmp_path / "socket", MEMORY, 64 * 1024), HeldEngine()
    engine.free.set()
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()
    pixels = np.zeros(30_000, np.uint8)  # two fit at once
    for _ in range(6):
        task = asyncio.create_task(rig.remote.submit(job(pixels)))
        await engine.begun.get()  # its answer is on its way already
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with asyncio.timeout(30):
        assert (await rig.remote.submit(job(pixels))).version == "v1"
    await rig.close()


async def test_an_answer_that_could_never_fit_is_refused(tmp_path: Path) -> None:
    rig, engine = Rig(tmp_path / "socket", MEMORY, 4096), HeldEngine()
    engine.free.set()
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()

    found = await failure(asyncio.create_task(rig.remote.submit(job(IMAGE))))

    assert found.reason == errors_pb2.ERROR_REASON_TOO_MANY_ITEMS
    assert "ask for fewer" in found.message
    await rig.close()


async def test_when_the_memory_for_requests_is_full_callers_are_told(tmp_path: Path) -> None:
    rig, engine = Rig(tmp_path / "socket", MEMORY, 4 * MEMORY), HeldEngine()
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()
    large = np.zeros(MEMORY // 2 + 1, np.uint8)
    first = asyncio.create_task(rig.remote.submit(job(large)))
    await engine.begun.get()

    found = await failure(asyncio.create_task(rig.remote.submit(job(large))))

    assert found.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    engine.free.set()
    await first
    await rig.remote.submit(job(large))
    await rig.close()


async def test_bulk_leaves_the_higher_classes_room_in_the_memory(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held
    bulk = replace(job(np.zeros(MEMORY // 8, np.uint8)), priority=Priority.BULK)
    waiting = [asyncio.create_task(rig.remote.submit(bulk)) for _ in range(6)]
    for _ in waiting:
        await engine.begun.get()

    found = await failure(asyncio.create_task(rig.remote.submit(bulk)))
    control = asyncio.create_task(
        rig.remote.submit(replace(bulk, items=bulk.items * 2, priority=Priority.CONTROL))
    )
    await engine.begun.get()
    engine.free.set()

    assert found.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    answered = await asyncio.gather(*waiting, control)
    assert [len(result.outputs) for result in answered] == [1] * 6 + [2]


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        (1, errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE),
        (2, errors_pb2.ERROR_REASON_TOO_MANY_ITEMS),
    ],
)
async def test_what_can_never_fit_the_memory_for_requests_is_refused_for_good(
    held: tuple[Rig, HeldEngine], pictures: int, reason: errors_pb2.ErrorReason.ValueType
) -> None:
    rig, engine = held
    engine.free.set()
    items = tuple(Item((np.zeros(MEMORY // pictures + 1, np.uint8),)) for _ in range(pictures))

    found = await failure(asyncio.create_task(rig.remote.submit(replace(job(), items=items))))

    assert found.reason == reason
    assert found.retry_delay is None
    assert f"at most {MEMORY} are allowed" in found.message
    assert (await rig.remote.submit(job(np.zeros(MEMORY, np.uint8)[: MEMORY // 4]))).version == "v1"


async def test_a_cancelled_callers_memory_comes_back(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    task = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    sent = await engine.begun.get()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert (await engine.withdrawn.get()).items[0].arrays[0].shape == sent.items[0].arrays[0].shape
    assert await used_after_all(rig) == 0


async def test_a_caller_who_leaves_at_once_gives_the_memory_back_too(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, _ = held
    tasks = [asyncio.create_task(rig.remote.submit(job(IMAGE))) for _ in range(5)]
    await asyncio.sleep(0)  # all are sent, none is read
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert await used_after_all(rig) == 0


async def test_a_caller_who_leaves_while_the_answer_is_on_its_way_costs_nothing(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held
    engine.free.set()
    for _ in range(30):
        task = asyncio.create_task(rig.remote.submit(job(IMAGE)))
        await engine.begun.get()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert await used_after_all(rig) == 0
    assert engine.used == 0


async def test_a_caller_who_leaves_in_the_very_tick_of_the_answer_costs_nothing(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held
    engine.free.set()
    for _ in range(5):
        task = asyncio.create_task(rig.remote.submit(job(IMAGE)))
        rig.remote.then = task.cancel
        with pytest.raises(asyncio.CancelledError):
            await task
        rig.remote.then = None

    assert await used_after_all(rig) == 0
    assert engine.used == 0
    output = (await rig.remote.submit(job(IMAGE))).outputs[0]
    assert isinstance(output, ItemOutput)
    assert np.array_equal(output.arrays[0], IMAGE)


# ---------------------------------------------------------------- an engine that goes and comes


async def test_without_an_engine_callers_are_told_to_come_back(tmp_path: Path) -> None:
    remote = RemoteEngine(tmp_path / "nobody", MEMORY, MEMORY)
    remote.start()

    for work in (
        remote.submit(job(IMAGE)),
        remote.load_model("arm", "", False),
        remote.unload_model("arm"),
    ):
        with pytest.raises(Failure) as caught:
            await work
        assert caught.value.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
        assert caught.value.retry_delay is not None
    assert remote.models == {}
    await remote.close()


async def test_what_is_in_flight_when_the_engine_dies_fails_and_a_new_engine_is_found(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held
    tasks = [asyncio.create_task(rig.remote.submit(job(IMAGE))) for _ in range(3)]
    for _ in tasks:
        await engine.begun.get()

    await rig.hang_up()
    reasons = [(await failure(task)).reason for task in tasks]
    await rig.connected(False)

    assert reasons == [errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE] * 3
    reborn = HeldEngine()
    reborn.free.set()
    rig.serve(reborn)
    await rig.connected()
    output = (await rig.remote.submit(job(IMAGE))).outputs[0]
    assert isinstance(output, ItemOutput)
    assert np.array_equal(output.arrays[0], IMAGE)
    assert rig.used == 0


async def test_a_front_that_goes_withdraws_what_it_asked(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    task = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    await engine.begun.get()

    await rig.remote.close()

    await engine.withdrawn.get()
    assert (await failure(task)).reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    while engine.listeners:  # the engine has let it go
        await asyncio.sleep(0)


async def test_two_fronts_do_not_disturb_each_other(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    engine.free.set()
    other = Rig(rig.path)
    other.remote.start()
    await other.connected()

    jobs = [
        r.submit(job(i)) for _ in range(10) for r, i in ((rig.remote, IMAGE), (other.remote, LATER))
    ]
    results = await asyncio.gather(*jobs)

    for place, result in enumerate(results):
        output = result.outputs[0]
        assert isinstance(output, ItemOutput)
        assert np.array_equal(output.arrays[0], LATER if place % 2 else IMAGE)
    await other.remote.close()


async def test_whoever_brings_no_memory_is_not_served(held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    engine.free.set()
    reader, writer = await asyncio.open_unix_connection(str(rig.path))
    writer.write(b"S")

    assert await reader.read() == b""

    writer.close()
    assert (await rig.remote.submit(job(IMAGE))).version == "v1"


def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    async def listen() -> int:
        task = asyncio.create_task(serve_engine(HeldEngine(), tmp_path / "socket"))
        await asyncio.sleep(0)
        mode = (tmp_path / "socket").stat().st_mode & 0o777
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return mode

    assert asyncio.run(listen()) == 0o600
