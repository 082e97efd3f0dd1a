"""What waits in a scheduler is kept new: what a job is computed from in the end."""

import asyncio

import pytest
from tests.server.worker.engine.gated import Rig, lengths, refusal, settle
from tests.server.worker.renewals import Source

from tectum.v1 import errors_pb2
from tectum_server.worker.jobs import EmbedImages, Item, Job, Priority


def text(words: str) -> Item:
    return Item(text=words)


async def test_what_waits_is_computed_from_the_newest_there_is(rig: Rig) -> None:
    source = Source()
    await rig.busy()
    task = rig.submit("old", renewal=source)
    await source.asked.wait()
    assert await source.has_settled(text("newer"))
    assert await source.has_settled(text("newest of all"))

    rig.predictor.open()

    assert lengths(await task) == [len("newest of all")]
    assert rig.predictor.batches == [["first"], ["newest of all"]]


async def test_what_runs_already_is_not_changed(rig: Rig) -> None:
    source = Source()
    await rig.busy()
    task = rig.submit("old", renewal=source)
    await source.asked.wait()
    rig.predictor.let_go()
    await rig.predictor.begun()

    source.has(text("too late"))
    await settle()
    rig.predictor.open()

    assert lengths(await task) == [3]
    assert source.withdrawn == 1
    assert source.settlements == []


async def test_a_job_that_never_waits_is_not_asked(rig: Rig) -> None:
    source = Source()
    rig.predictor.open()

    await rig.submit("at once", renewal=source)

    assert not source.asked.is_set()


async def test_who_has_no_part_in_the_next_batch_is_not_asked_yet() -> None:
    rig = Rig(max_batch=2)
    sources = [Source() for _ in range(4)]
    await rig.busy()
    tasks = [rig.submit("old", renewal=source) for source in sources]
    await settle()
    asked_first = [source.asked.is_set() for source in sources]

    rig.predictor.let_go()
    await rig.predictor.begun()
    await settle()
    asked_then = [source.asked.is_set() for source in sources]
    rig.predictor.open()
    await asyncio.gather(*tasks)

    assert asked_first == [True, True, False, False]
    assert asked_then == [True] * 4
    await rig.scheduler.close()


async def test_who_comes_late_into_the_next_batch_is_asked_too(rig: Rig) -> None:
    await rig.busy()
    await settle()
    source = Source()

    task = rig.submit("late", renewal=source)
    await source.asked.wait()
    taken = await source.has_settled(text("later"))
    rig.predictor.open()

    assert taken
    assert lengths(await task) == [5]


async def test_a_job_whose_cost_is_known_is_asked_only_when_its_turn_is_near(rig: Rig) -> None:
    rig.predictor.takes = 3600.0  # so that half of it is far away
    rig.predictor.let_go()
    await rig.submit("teaches what it costs")
    await rig.predictor.begun()
    source = Source()
    busy = rig.submit("first")
    await rig.predictor.begun()

    task = rig.submit("old", renewal=source)
    await settle()

    assert not source.asked.is_set()
    rig.predictor.open()
    await asyncio.gather(busy, task)


@pytest.mark.parametrize(
    "items",
    [
        (text("one"), text("too many")),
        (Item(text="another kind", operation=EmbedImages("pooled")),),
    ],
    ids=["more", "of another kind"],
)
async def test_content_of_another_kind_does_not_take_a_jobs_place(
    rig: Rig, items: tuple[Item, ...]
) -> None:
    source = Source()
    await rig.busy()
    task = rig.submit("old", renewal=source)
    await source.asked.wait()

    taken = await source.has_settled(*items)
    rig.predictor.open()

    assert not taken
    assert lengths(await task) == [3]


async def test_a_job_of_which_a_part_runs_keeps_what_it_has() -> None:
    rig = Rig(max_batch=2)
    source = Source()
    await rig.busy()
    task = rig.submit("a", "bb", "ccc", renewal=source)
    await source.asked.wait()
    rig.predictor.let_go()
    await rig.predictor.begun()
    await settle()

    source.has(text("x" * 7), text("x" * 8), text("x" * 9))
    await settle()
    rig.predictor.open()

    assert lengths(await task) == [1, 2, 3]
    assert True not in source.settlements
    await rig.scheduler.close()


async def test_a_caller_who_goes_leaves_nothing_that_asks(rig: Rig) -> None:
    source = Source()
    await rig.busy()
    task = rig.submit("old", renewal=source)
    await source.asked.wait()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert source.withdrawn == 1
    rig.predictor.open()


async def long_batches(rig: Rig) -> None:
    """Let it be known that a batch takes an hour, which passes at once."""
    rig.predictor.takes = 3600.0
    rig.predictor.let_go()
    await rig.submit("teaches what it costs")
    await rig.predictor.begun()


async def test_a_long_batch_is_computed_from_what_is_newest_as_it_begins(rig: Rig) -> None:
    await long_batches(rig)
    source = Source()
    await rig.busy()
    task = rig.submit("old", renewal=source)
    await settle()
    asked_before = source.asked.is_set()  # half an hour before the end, or so it seems
    source.has(text("newest"))

    rig.predictor.open()

    assert lengths(await task) == [len("newest")]
    assert not asked_before
    assert source.settlements == [True]


async def test_a_place_that_was_asked_before_is_asked_anew_as_a_long_batch_begins(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tectum_server.worker.engine.scheduling.renewing.ask_after", lambda _: 0.0)
    monkeypatch.setattr("tectum_server.worker.engine.scheduling.renewing.NEW_MS", 0.0)
    await long_batches(rig)
    source = Source()
    source.has(text("newer"))
    await rig.busy()
    task = rig.submit("old", renewal=source)
    await source.asked.wait()
    await settle()
    taken = list(source.settlements)
    source.has(text("newest"))

    rig.predictor.open()

    assert lengths(await task) == [len("newest")]
    assert (taken, source.settlements) == ([True], [True, True])


async def test_a_long_batch_waits_for_nobody_while_calls_do() -> None:
    rig = Rig(max_batch=1)
    await long_batches(rig)
    source = Source()
    await rig.busy()
    place = rig.submit("old", renewal=source, priority=Priority.CONTROL, turn=0.0)
    call = rig.submit("call")
    await settle()
    source.has(text("newest"))

    rig.predictor.open()
    await asyncio.gather(place, call)

    assert rig.predictor.batches[-2:] == [["old"], ["call"]]
    assert source.settlements == []
    await rig.scheduler.close()


async def test_who_goes_as_a_long_batch_begins_is_left_out(rig: Rig) -> None:
    await long_batches(rig)
    source = Source()
    source.takes = 3600.0
    await rig.busy()
    gone, stays = rig.submit("gone", renewal=source), rig.submit("stays")
    await settle()
    rig.predictor.let_go()
    await source.asked.wait()

    gone.cancel()
    rig.predictor.open()

    assert lengths(await stays) == [5]
    assert rig.predictor.batches[-1] == ["stays"]
    assert len(rig.scheduler._queue.places) == 0


# ---------------------------------------------------------------- streams' places


async def test_a_place_is_of_use_for_as_long_as_its_newest_frame_is(rig: Rig) -> None:
    source = Source()
    await rig.busy()
    task = rig.submit("old", within=1.0, renewal=source, turn=0.0)
    await source.asked.wait()
    await source.has_settled(text("newer"), until=rig.clock.now + 3.0)

    rig.clock.now += 2.0
    rig.predictor.open()

    assert lengths(await task) == [5]


async def test_a_place_whose_frame_is_stale_as_its_batch_begins_is_left_out(rig: Rig) -> None:
    source = Source()
    await rig.busy()
    stale = rig.submit("old", within=1.0, renewal=source, turn=0.0)
    mate = rig.submit("mate", turn=1.0)
    await source.asked.wait()
    await source.has_settled(text("newer"), until=rig.clock.now + 1.5)

    rig.clock.now += 1.6
    rig.predictor.open()

    assert (await refusal(stale)).reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED
    assert lengths(await mate) == [4]
    assert rig.predictor.batches == [["first"], ["mate"]]
    assert len(rig.scheduler._queue.places) == 0


async def test_a_batch_of_nothing_but_stale_places_is_none(rig: Rig) -> None:
    await rig.busy()
    stale = [rig.submit("old", within=0.5, turn=0.0) for _ in range(3)]
    await settle()
    rig.clock.now += 1.0
    rig.predictor.open()

    for task in stale:
        assert (await refusal(task)).reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED
    assert lengths(await rig.submit("next")) == [4]
    assert rig.predictor.batches == [["first"], ["next"]]


async def test_who_was_answered_longest_ago_is_computed_first() -> None:
    rig = Rig(max_batch=1)
    await rig.busy()
    tasks = [rig.submit(name, turn=turn) for name, turn in (("b", 2.0), ("c", 3.0), ("a", 1.0))]
    await settle()

    rig.predictor.open()
    await asyncio.gather(*tasks)

    assert rig.predictor.batches == [["first"], ["a"], ["b"], ["c"]]
    await rig.scheduler.close()


async def test_a_long_batch_waits_for_newer_frames_though_its_own_are_stale(rig: Rig) -> None:
    await long_batches(rig)
    source = Source()
    await rig.busy()
    task = rig.submit("old", within=3600.0, renewal=source, turn=0.0)  # over as the first one is
    await settle()
    source.has(text("newest"))

    rig.predictor.open()

    assert lengths(await task) == [len("newest")]


async def test_items_of_one_job_may_be_of_several_operations() -> None:
    one, other = EmbedImages("joint"), EmbedImages("pooled")
    job = Job("m", one, (text("a"), Item(operation=other)), Priority.CONTROL, 1.0)

    assert [job.operation_of(index) for index in range(2)] == [one, other]
