"""Whoever runs next is kept new while batches run: who is asked, and from when on."""

import asyncio

import pytest
from tests.server.worker.engine.gated import settle
from tests.server.worker.renewals import Source

from tectum_server.worker.engine.policy.asking import Needs
from tectum_server.worker.engine.scheduling.renewing import Ahead, Renewed
from tectum_server.worker.jobs import Item

NOTHING = Needs()


def text(words: str) -> Item:
    return Item(text=words)


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
    monkeypatch.setattr(
        "tectum_server.worker.engine.scheduling.renewing.time.monotonic", lambda: now[0]
    )
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
    monkeypatch.setattr(
        "tectum_server.worker.engine.scheduling.renewing.time.monotonic", lambda: now[0]
    )
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


@pytest.mark.parametrize("first_ms", [None, 10.0, 60_000.0])
async def test_behind_two_batches_nobody_is_asked_before_the_second_is_nearly_over(
    first_ms: float | None,
) -> None:
    source, job = kept()
    ahead = Ahead(lambda: ([job], 100.0))
    ahead.begin(first_ms)
    ahead.begin(600_000.0)
    await asyncio.sleep(0.02)
    await looked(ahead)
    behind_both = source.asked.is_set()

    ahead.end()
    await looked(ahead)

    assert (behind_both, source.asked.is_set()) == (False, False)
    ahead.end()


async def test_when_the_first_of_two_batches_has_ended_it_is_time_by_the_second() -> None:
    source, job = kept()
    ahead = Ahead(lambda: ([job], 100.0))
    ahead.begin(600_000.0)
    ahead.begin(None)
    await looked(ahead)
    behind_both = source.asked.is_set()

    ahead.end()
    await asyncio.wait_for(source.asked.wait(), 5)
    ahead.end()
    await job.close()

    assert not behind_both


async def test_once_both_have_ended_nobody_looks_any_more() -> None:
    looks = list[int]()
    ahead = Ahead(lambda: looks.append(1) or ([], None))  # type: ignore[func-returns-value]
    ahead.begin(None)
    ahead.begin(None)
    ahead.end()
    ahead.end()
    looks.clear()

    await asyncio.sleep(0.15)
    ahead.look()

    assert looks == []
