"""Newer content crosses the link until a job runs, and no memory is lost over it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.server.worker.linked import IMAGE, LATER, HeldEngine, Rig, failure, job, used_after_all
from tests.server.worker.renewals import Source

from tectum.v1 import errors_pb2
from tectum_server.worker.engine.scheduling.renewing import Renewed
from tectum_server.worker.jobs import (
    Content,
    EmbedImages,
    Item,
    ItemOutput,
    Job,
    JobResult,
    LatentActions,
    Renewal,
)
from tectum_server.worker.link.renewing import Offering, Requested


class RenewingEngine(HeldEngine):
    """Keeps what waits new from the beginning until it is free."""

    takes = True
    patient = True

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        content = [job]

        def take(newer: Content) -> bool:
            if self.takes:
                content.append(replace(job, items=newer.items, deadline=newer.deadline))
            return self.takes

        renewed = Renewed(renewal, take)
        renewed.ask() if self.patient else renewed.ask_once()
        once = renewed.under_way
        try:
            await (self.free.wait() if once is None else asyncio.wait({once}))
            renewed.end()
            return await super().submit(content[-1])
        finally:
            await renewed.close()


@pytest.fixture
async def renewing(tmp_path: Path) -> AsyncIterator[tuple[Rig, RenewingEngine]]:
    rig, engine = Rig(tmp_path / "socket"), RenewingEngine()
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()
    yield rig, engine
    engine.free.set()
    await rig.close()


def picture(value: int) -> Item:
    return Item((np.full((8, 8, 3), value, np.uint8),))


async def begun(rig: Rig, *items: Item) -> tuple[asyncio.Task[JobResult], Source]:
    """A job that waits and has been asked for newer content."""
    source = Source()
    work = replace(job(IMAGE), items=items or (picture(0),))
    task = asyncio.create_task(rig.remote.submit(work, source))
    await source.asked.wait()
    return task, source


def seen(result: JobResult) -> list[int]:
    return [int(o.arrays[-1].flat[0]) for o in result.outputs if isinstance(o, ItemOutput)]


# ---------------------------------------------------------------- over a socket


async def test_the_newest_that_came_in_time_is_computed(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, engine = renewing
    task, source = await begun(rig)

    taken = [await source.has_settled(picture(value)) for value in (1, 2, 3)]
    engine.free.set()

    assert taken == [True, True, True]
    assert seen(await task) == [3]


async def test_what_was_outdone_takes_no_memory(renewing: tuple[Rig, RenewingEngine]) -> None:
    rig, engine = renewing
    task, source = await begun(rig)
    alone = rig.used

    for value in range(1, 6):
        assert await source.has_settled(picture(value))
        assert rig.used == alone

    engine.free.set()
    await task
    assert await used_after_all(rig) == 0


async def test_what_comes_too_late_is_given_back(renewing: tuple[Rig, RenewingEngine]) -> None:
    rig, engine = renewing
    task, source = await begun(rig)
    engine.free.set()
    await task

    assert source.withdrawn == 1
    assert source.settlements == []
    assert await used_after_all(rig) == 0


async def test_what_crosses_while_the_job_begins_is_said_to_be_too_late(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, engine = renewing
    for _ in range(20):
        engine.free.clear()
        task, source = await begun(rig)
        source.has(picture(9))
        await asyncio.sleep(0)
        engine.free.set()

        told = seen(await task)

        # Settled before its answer, one way or the other, or never handed over.
        assert (told, source.settlements) in (([9], [True]), ([0], [False]), ([0], []))
        assert await used_after_all(rig) == 0


async def test_what_is_not_taken_is_told_and_nothing_is_asked_any_more(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, engine = renewing
    engine.takes = False
    task, source = await begun(rig)

    taken = await source.has_settled(picture(1))
    source.has(picture(2))
    await used_after_all(rig)

    assert not taken
    assert source.settlements == [False]
    engine.free.set()
    assert seen(await task) == [0]
    assert await used_after_all(rig) == 0


async def test_items_of_several_operations_cross(renewing: tuple[Rig, RenewingEngine]) -> None:
    rig, engine = renewing
    asked = (EmbedImages("joint"), LatentActions(True, False))
    items = tuple(replace(picture(5), operation=operation) for operation in asked)
    task, source = await begun(rig, *items)
    newer = tuple(replace(picture(6), operation=operation) for operation in asked)
    assert await source.has_settled(*newer)

    engine.free.set()
    await task

    came = await engine.begun.get()
    assert [came.operation_of(index) for index in range(2)] == list(asked)


async def test_a_job_without_newer_content_is_not_asked(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, engine = renewing
    engine.free.set()

    assert (await rig.remote.submit(job(IMAGE, LATER))).version == "v1"


async def test_where_there_is_no_room_for_newer_content_the_job_keeps_what_it_has(
    tmp_path: Path,
) -> None:
    rig, engine = Rig(tmp_path / "socket", request_bytes=4096), RenewingEngine()
    rig.serve(engine)
    rig.remote.start()
    await rig.connected()
    task, source = await begun(rig)

    taken = await source.has_settled(Item((np.ones((64, 64, 3), np.uint8),)))
    engine.free.set()

    assert not taken
    assert seen(await task) == [0]
    assert await used_after_all(rig) == 0
    await rig.close()


async def test_what_would_be_offered_to_a_job_that_is_answered_takes_no_memory(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, engine = renewing
    for _ in range(20):
        engine.free.clear()
        task, source = await begun(rig)
        link = rig.remote._link
        assert link is not None
        # In the very turn in which the answer is heard, what is newer is there.
        rig.remote.then = lambda source=source: source.has(picture(9))
        engine.free.set()
        await task
        rig.remote.then = None
        assert await used_after_all(rig) == 0


async def test_a_caller_who_goes_has_its_content_back(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, _ = renewing
    task, source = await begun(rig)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert source.withdrawn == 1
    assert await used_after_all(rig) == 0


async def test_an_engine_that_dies_gives_it_back_too(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, _ = renewing
    task, source = await begun(rig)

    await rig.hang_up()

    assert (await failure(task)).reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert source.withdrawn == 1


async def test_where_it_is_asked_for_once_what_there_is_now_is_computed(
    renewing: tuple[Rig, RenewingEngine],
) -> None:
    rig, engine = renewing
    engine.patient = False
    engine.free.set()
    source = Source()
    source.has(picture(7))
    source.has(picture(8))

    result = await rig.remote.submit(replace(job(IMAGE), items=(picture(0),)), source)

    assert (seen(result), source.settlements) == ([7], [True])
    assert source.patient is False
    assert await used_after_all(rig) == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_that_there_is_nothing_newer_is_an_answer_too(
    renewing: tuple[Rig, RenewingEngine], fails: bool
) -> None:
    rig, engine = renewing
    engine.patient = False
    engine.free.set()
    source = Source()
    source.fails = fails

    result = await rig.remote.submit(replace(job(IMAGE), items=(picture(0),)), source)

    assert (seen(result), source.settlements) == ([0], [])
    assert await used_after_all(rig) == 0


# ---------------------------------------------------------------- either end alone


async def test_what_was_sent_and_not_settled_is_given_back_in_the_end() -> None:
    source = Source()
    offering = Offering(source, lambda _: True)
    offering.begin(patient=True)
    offering.begin(patient=True)  # it has begun already
    source.has(picture(1))
    await asyncio.sleep(0.01)

    await offering.close()

    assert source.settlements == [False]


async def test_an_answer_in_the_same_breath_loses_no_settlement() -> None:
    source = Source()
    offering = Offering(source, lambda _: True)
    offering.begin(patient=True)
    source.has(picture(1))
    await asyncio.sleep(0.01)

    offering.settle(taken=True)
    await offering.close()

    assert source.settlements == [True]


async def test_a_settlement_of_nothing_changes_nothing() -> None:
    source = Source()

    Offering(source, lambda _: True).settle(taken=True)

    assert source.settlements == []


async def test_a_source_that_fails_ends_the_offers(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.fails = True
    offering = Offering(source, lambda _: True)

    with caplog.at_level(logging.ERROR):
        offering.begin(patient=True)
        await asyncio.sleep(0.01)
    await offering.close()

    assert "newer content" in caplog.text


async def test_the_front_is_told_each_time_that_something_newer_is_due() -> None:
    said = list[object]()
    requested = Requested(lambda _: said.append("due"), said.append)

    for value in (1, 2):
        coming = asyncio.create_task(requested.newest(patient=True))
        await asyncio.sleep(0)
        requested.hear(Content((picture(value),), 9.0))
        content = await coming
        assert content is not None
        assert content.items[0].arrays[0].flat[0] == value
        requested.settled(taken=True)

    assert said == ["due", True, "due", True]


async def test_what_comes_when_nobody_asks_is_not_taken() -> None:
    said = list[object]()
    requested = Requested(lambda _: said.append("due"), said.append)

    requested.hear(Content((picture(1),), 9.0))
    coming = asyncio.create_task(requested.newest(patient=True))
    await asyncio.sleep(0)
    coming.cancel()
    await asyncio.gather(coming, return_exceptions=True)
    requested.hear(Content((picture(2),), 9.0))

    assert said == [False, "due", False]


async def test_what_came_and_was_not_looked_at_is_not_taken() -> None:
    said = list[object]()
    requested = Requested(lambda _: said.append("due"), said.append)
    coming = asyncio.create_task(requested.newest(patient=True))
    await asyncio.sleep(0)

    requested.hear(Content((picture(1),), 9.0))
    coming.cancel()  # in the same breath
    await asyncio.gather(coming, return_exceptions=True)

    assert said == ["due", False]
