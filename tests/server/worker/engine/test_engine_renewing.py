"""What waits is kept new: who is asked, when, and what a job is computed from in the end."""

import asyncio
import logging

import pytest
from tests.server.worker.engine.gated import settle
from tests.server.worker.renewals import Source

from tectum_server.worker.engine.asking import Needs
from tectum_server.worker.engine.renewing import Ahead, Renewed, freshen
from tectum_server.worker.jobs import Content, Item

FAR = 1e9
"""Milliseconds until somebody's answer would be too late."""
NOTHING = Needs()


def text(words: str) -> Item:
    return Item(text=words)


# ---------------------------------------------------------------- one job's content


async def test_a_job_without_a_source_is_never_asked() -> None:
    renewed = Renewed(None, lambda _: pytest.fail("nothing can come"))

    renewed.ask()
    renewed.end()
    await renewed.close()

    assert len(asyncio.all_tasks()) == 1


async def test_it_is_asked_again_until_something_is_not_taken() -> None:
    source, given_to = Source(), list[str]()

    def take(content: Content) -> bool:
        given_to.append(content.items[0].text)
        return len(given_to) < 3

    renewed = Renewed(source, take)
    renewed.ask()
    renewed.ask()  # it is asked already
    for words in ("one", "two", "three"):
        await source.has_settled(text(words))
    source.has(text("four"))
    await settle()

    assert given_to == ["one", "two", "three"]
    assert source.settlements == [True, True, False]
    await renewed.close()


async def test_once_it_has_ended_what_was_asked_is_withdrawn() -> None:
    source = Source()
    renewed = Renewed(source, lambda _: True)
    renewed.ask()
    await source.asked.wait()

    await renewed.close()

    assert source.withdrawn == 1
    assert len(asyncio.all_tasks()) == 1


async def test_a_source_that_fails_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source()
    source.fails = True
    renewed = Renewed(source, lambda _: True)

    with caplog.at_level(logging.ERROR):
        renewed.ask()
        await settle()
    await renewed.close()

    assert "newer content" in caplog.text
    assert "no such camera" in caplog.text


async def test_of_a_camera_that_never_stops_no_more_is_decoded_than_is_of_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, taken, pauses = Source(), list[str](), list[float]()
    asleep = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asleep.wait()

    monkeypatch.setattr("tectum_server.worker.engine.renewing.asyncio.sleep", pause)
    renewed = Renewed(source, lambda content: not taken.append(content.items[0].text))  # type: ignore[func-returns-value]
    for number in range(100):
        source.has(text(str(number)))

    renewed.ask()
    while not pauses:
        await turn()
    await renewed.close()

    assert (taken, pauses) == (["0"], [0.1])


async def turn() -> None:
    """Let the others go on, also where nobody sleeps."""
    await asyncio.get_running_loop().run_in_executor(None, int)


async def test_the_members_of_a_long_batch_are_asked_once_and_waited_for() -> None:
    sources, taken = [Source() for _ in range(3)], list[str]()

    def take(content: Content) -> bool:
        taken.append(content.items[0].text)
        return True

    for number, source in enumerate(sources[:2]):
        source.has(text(f"{number}"))
        source.has(text("newer still"))
    jobs = [Renewed(source, take) for source in sources]

    await freshen([*jobs, Renewed(None, take)], 60_000.0, FAR)

    assert taken == ["0", "1"]
    assert [source.patient for source in sources] == [False] * 3
    assert [source.settlements for source in sources] == [[True], [True], []]


async def test_whoever_does_not_answer_is_waited_for_a_little_and_no_longer() -> None:
    source = Source()
    source.takes = 3600.0
    job = Renewed(source, lambda _: True)

    await asyncio.wait_for(freshen([job], 1000.0, FAR), 10)
    await job.close()

    assert source.withdrawn == 1


async def test_who_was_asked_shortly_before_is_waited_for_and_not_asked_twice() -> None:
    early, late = Source(), Source()
    late.takes = 3600.0
    early.has(text("early"))
    jobs = [Renewed(source, lambda _: True) for source in (early, late)]
    for job in jobs:
        job.ask_once()
    await settle()
    waiting = asyncio.create_task(freshen(jobs, 600_000.0, FAR))
    await settle()

    still_waits = not waiting.done()
    late.has(text("late"))
    await asyncio.wait_for(waiting, 5)

    assert still_waits
    assert [early.settlements, late.settlements] == [[True], [True]]


@pytest.mark.parametrize("spare_ms", [-5.0, 0.0])
async def test_where_somebody_would_be_too_late_nobody_is_waited_for(spare_ms: float) -> None:
    source = Source()

    await asyncio.wait_for(freshen([Renewed(source, lambda _: True)], 600_000.0, spare_ms), 5)

    assert not source.asked.is_set()


async def test_who_was_asked_a_moment_ago_is_asked_anew_as_the_batch_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, now = Source(), [100.0]
    monkeypatch.setattr("tectum_server.worker.engine.renewing.time.monotonic", lambda: now[0])
    job = Renewed(source, lambda _: True)
    source.has(text("old"))
    job.ask_once()
    await settle()
    source.has(text("new"))

    now[0] += 0.05
    await freshen([job], 60_000.0, FAR)
    soon = list(source.settlements)
    now[0] += 0.11
    await freshen([job], 60_000.0, FAR)

    assert (soon, source.settlements) == ([True], [True, True])


async def test_who_goes_on_giving_what_is_newer_is_not_waited_for() -> None:
    job = Renewed(Source(), lambda _: True)
    job.ask()

    await asyncio.wait_for(freshen([job], 600_000.0, FAR), 5)

    assert job.under_way is None
    await job.close()


@pytest.mark.parametrize("expected_ms", [None, 10.0])
async def test_the_members_of_a_short_batch_are_not_asked_any_more(
    expected_ms: float | None,
) -> None:
    source = Source()

    await freshen([Renewed(source, lambda _: True)], expected_ms, FAR)

    assert not source.asked.is_set()


async def test_a_short_batch_after_a_long_one_waits_too() -> None:
    source, taken = Source(), list[str]()
    source.has(text("newer"))
    job = Renewed(source, lambda content: not taken.append(content.items[0].text))  # type: ignore[func-returns-value]

    await freshen([job], 10.0, FAR, ran_ms=60_000.0)

    assert taken == ["newer"]


async def test_nobody_is_asked_who_had_no_use_for_the_last_one() -> None:
    source = Source()
    source.has(text("of another kind"))
    job = Renewed(source, lambda _: False)
    job.ask_once()
    await settle()
    source.has(text("too"))

    job.ask_once()
    await settle()

    assert source.settlements == [False]


# ---------------------------------------------------------------- who runs next


def kept(needs: Needs = NOTHING) -> tuple[Source, Renewed]:
    """A job that takes whatever is newer."""
    source = Source()
    return source, Renewed(source, lambda _: True, lambda: needs)


async def looked(ahead: Ahead) -> None:
    """Let one more look pass."""
    ahead.look()
    await settle()


async def test_while_a_batch_runs_on_whoever_runs_next_is_asked_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("tectum_server.worker.engine.renewing.time.monotonic", lambda: now[0])
    source, job = kept()
    ahead = Ahead(lambda: ([job], 2000.0))
    ahead.begin(None)
    await asyncio.sleep(0)
    asked = []
    for number in range(4):
        source.has(text(f"{number}"))
        await looked(ahead)
        asked.append(len(source.settlements))
        now[0] += 0.08

    ahead.end()
    await job.close()

    assert asked == [1, 1, 2, 2]


async def test_before_a_short_batch_they_go_on_giving_what_is_newer() -> None:
    source, job = kept()
    ahead = Ahead(lambda: ([job], 100.0))
    ahead.begin(None)
    await asyncio.wait_for(source.asked.wait(), 5)

    ahead.end()
    await job.close()

    assert source.patient is True


async def test_nobody_is_asked_to_go_on_whose_pictures_have_to_be_prepared() -> None:
    source, job = kept(Needs(4.0))
    ahead = Ahead(lambda: ([job], 100.0))
    ahead.begin(None)
    await asyncio.wait_for(source.asked.wait(), 5)

    ahead.end()
    await job.close()

    assert source.patient is False


async def test_nobody_is_asked_anew_for_what_could_not_be_prepared_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("tectum_server.worker.engine.renewing.time.monotonic", lambda: now[0])
    jobs = [kept(Needs(takes_ms)) for takes_ms in (40.0, 1.0, 170.0, 40.0)]
    ahead = Ahead(lambda: ([job for _, job in jobs], 2000.0))  # which may wait 100 ms
    ahead.begin(None)
    for _ in range(2):
        for source, _ in jobs:
            source.has(text("newer"))
        await asyncio.sleep(0)
        await looked(ahead)
        now[0] += 1.0

    ahead.end()
    for _, job in jobs:
        await job.close()

    assert [len(source.settlements) for source, _ in jobs] == [2, 2, 1, 2]


async def test_nobody_is_asked_once_the_batch_has_ended() -> None:
    source, job = kept()
    ahead = Ahead(lambda: ([job], 100.0))
    ahead.begin(None)
    ahead.end()

    await looked(ahead)

    assert not source.asked.is_set()


async def test_what_ran_counts_for_the_batch_that_begins_at_once() -> None:
    ahead = Ahead(lambda: ([], None))
    before = ahead.ran_ms

    ahead.begin(60_000.0)
    await asyncio.sleep(0.01)
    ahead.end()

    assert before == 0.0
    assert ahead.ran_ms > 0.0
