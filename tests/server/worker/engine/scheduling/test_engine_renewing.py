"""What waits is kept new: a job's content, and that of a batch as it begins."""

import asyncio
import logging

import pytest
from tests.server.worker.engine.gated import settle
from tests.server.worker.renewals import Source

from tectum_server.worker.engine.scheduling.renewing import Renewed, freshen
from tectum_server.worker.jobs import Content, Item

FAR = 1e9
"""Milliseconds until somebody's answer would be too late."""


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
    asleep, ours, sleep = asyncio.Event(), asyncio.get_running_loop(), asyncio.sleep

    async def pause(seconds: float) -> None:
        if asyncio.get_running_loop() is not ours:  # another thread's, which sleeps as ever
            await sleep(seconds)
            return
        pauses.append(seconds)
        await asleep.wait()

    monkeypatch.setattr("tectum_server.worker.engine.scheduling.renewing.asyncio.sleep", pause)
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
    monkeypatch.setattr(
        "tectum_server.worker.engine.scheduling.renewing.time.monotonic", lambda: now[0]
    )
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


@pytest.mark.parametrize("takes", [None, 3600.0])
async def test_what_comes_meanwhile_is_told_how_long_a_batch_waits_at_most(
    takes: float | None,
) -> None:
    source, waited = Source(), list[float]()
    source.takes = takes
    job = Renewed(source, lambda _: True)

    await asyncio.wait_for(freshen([job], 1000.0, FAR, delayed=waited.append), 10)
    await job.close()

    assert waited == [50.0]


async def test_a_batch_of_whom_nobody_is_asked_is_not_delayed() -> None:
    calls = [Renewed(None, lambda _: True) for _ in range(3)]

    await freshen(calls, 600_000.0, FAR, delayed=lambda _: pytest.fail("nobody is waited for"))

    assert len(asyncio.all_tasks()) == 1
