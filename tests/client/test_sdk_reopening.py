"""A lost stream is opened anew, if that was asked for, and goes on with the newest frame."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker
from tests.client.streams import SMALL, accepted, closed, collect, heard, paced

import tectum
from tectum.errors import TectumError
from tectum.reopening import LONGEST, Outage, comes_back, patience

AWAY = tectum.Unavailable("away")


# ---------------------------------------------------------------- when


@given(st.floats(0.1, 100), st.lists(st.floats(0, 0.999), min_size=1, max_size=60))
def test_tries_never_go_on_for_longer_than_the_patience(patience: float, dice: list[float]) -> None:
    outage, now = Outage(patience), 5.0
    for die in dice:
        pause = outage.pause(AWAY, now, die)
        if pause is None:
            break
        assert pause > 0
        now += pause
        assert now <= 5.0 + patience * (1 + 1e-9)


def test_pauses_grow_up_to_a_few_seconds_and_begin_anew_with_each_outage() -> None:
    outage = Outage(1000.0)

    pauses = [outage.pause(AWAY, 0.0, 0.0) for _ in range(8)]
    outage.over()

    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])
    assert outage.pause(AWAY, 500.0, 0.0) == pytest.approx(0.1)


def test_a_worker_that_accepts_and_is_lost_at_once_uses_up_the_same_patience() -> None:
    outage, now, tries = Outage(10.0), 0.0, 0
    while (pause := outage.pause(AWAY, now, 0.0)) is not None and tries < 1000:
        now, tries = now + pause, tries + 1
        outage.accepted(now)

    assert now <= 10.0
    assert tries < 20
    outage.accepted(now)
    assert outage.pause(AWAY, now + 60.0, 0.0) == pytest.approx(0.1)  # which was another one


def test_a_worker_that_says_when_to_come_back_is_believed() -> None:
    full = tectum.Overloaded("full", retry_after=0.7)

    assert Outage(10.0).pause(full, 0.0, 0.5) == pytest.approx(0.7 * 1.25)


def test_without_patience_nothing_is_tried() -> None:
    assert Outage().pause(AWAY, 0.0, 0.0) is None


@pytest.mark.parametrize(
    ("error", "back"),
    [
        (AWAY, True),
        (tectum.Cancelled("the server went"), True),
        (tectum.DeadlineExceeded("not accepted in time"), True),
        (tectum.Overloaded("too many streams", retry_after=1.0), True),
        (tectum.NotFound("no such model"), False),
        (tectum.CapabilityMissing("no such part"), False),
        (tectum.SpaceMismatch("another space"), False),
        (tectum.Unauthenticated("who?"), False),
        (tectum.InvalidInput("what?"), False),
        (tectum.InternalError("a fault"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_worker_that_is_away_comes_back(error: TectumError, back: bool) -> None:
    assert comes_back(error) is back


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 2 * LONGEST])
def test_a_patience_that_is_no_time_is_refused(value: float, client: tectum.Client) -> None:
    with pytest.raises(tectum.InvalidInput, match="reconnect: "):
        patience(value)
    with pytest.raises(tectum.InvalidInput, match="reconnect: "):
        client.stream(embed=True, reconnect=value)


# ---------------------------------------------------------------- through both clients


@pytest.fixture(params=["sync", "async"])
def open_stream(
    request: pytest.FixtureRequest, client: tectum.Client, aclient: tectum.AsyncClient
) -> Any:
    return client.stream if request.param == "sync" else aclient.stream


def frame(at: float | None = None) -> tectum.Frame:
    return tectum.Frame(SMALL, captured_at=at)


async def test_with_another_worker_it_goes_on_with_the_newest_frame(
    worker: FakeWorker, open_stream: Any
) -> None:
    stream = open_stream(embed=True, reconnect=30.0)
    await accepted(stream)
    stream.send(frame())
    assert (await heard(stream)).frame_id == 0
    reading = asyncio.create_task(heard(stream))
    worker.__exit__()
    await asyncio.sleep(0.3)  # long enough to notice

    for _ in range(3):
        stream.send(frame())
    with FakeWorker(port=worker.port) as other:
        result = await reading
        stream.send(frame())
        after = await heard(stream)
        await closed(stream)

    assert [sent.frame_id for sent in other.frames] == [3, 4]
    assert [result.frame_id, after.frame_id] == [3, 4]
    assert (stream.dropped, stream.lost) == (2, 0)


async def test_frames_that_were_under_way_are_told_as_lost(
    worker: FakeWorker, open_stream: Any
) -> None:
    stream = open_stream(embed=True, reconnect=30.0)
    await accepted(stream)
    worker.refuse(R.ERROR_REASON_DRAINING)
    stream.send(frame())
    reading = asyncio.create_task(heard(stream))
    while len(worker.seen) < 2:
        await asyncio.sleep(0.01)

    stream.send(frame())

    assert (await reading).frame_id == 1
    assert stream.lost == 1
    await closed(stream)


async def test_it_may_be_lost_again_and_again(worker: FakeWorker, open_stream: Any) -> None:
    stream = open_stream(paced_for_ever(), embed=True, latent_actions=True, reconnect=30.0)
    ids = []
    for _ in range(3):
        ids.append((await heard(stream)).frame_id)
        worker.refuse(R.ERROR_REASON_DRAINING)
    ids.append((await heard(stream)).frame_id)
    await closed(stream)

    assert ids == sorted(set(ids))
    assert len(worker.seen) >= 3
    assert len({seen.metadata["x-request-id"] for seen in worker.seen}) == 1


def paced_for_ever() -> Iterator[tectum.Frame]:
    while True:
        yield frame(time.time())
        time.sleep(0.01)


async def test_a_refusal_that_does_not_pass_is_raised(worker: FakeWorker, open_stream: Any) -> None:
    stream = open_stream(embed=True, reconnect=30.0)
    await accepted(stream)
    worker.refuse(R.ERROR_REASON_DRAINING)
    worker.refuse(R.ERROR_REASON_CAPABILITY_MISSING)
    stream.send(frame())

    with pytest.raises(tectum.CapabilityMissing):
        await heard(stream)
    with pytest.raises(tectum.ClientClosed):
        stream.send(frame())


async def test_when_patience_ends_the_loss_is_raised(worker: FakeWorker, open_stream: Any) -> None:
    stream = open_stream(embed=True, reconnect=0.3)
    await accepted(stream)
    worker.__exit__()

    with pytest.raises(tectum.TectumError) as told:
        await heard(stream)

    assert comes_back(told.value)
    with pytest.raises(tectum.ClientClosed):
        stream.send(frame())


async def test_a_first_opening_is_not_tried_again(worker: FakeWorker, open_stream: Any) -> None:
    worker.refuse(R.ERROR_REASON_DRAINING)

    with pytest.raises(tectum.Unavailable):
        await accepted(open_stream(embed=True, reconnect=30.0))

    assert len(worker.seen) == 1


async def test_without_reconnect_a_loss_is_raised(worker: FakeWorker, open_stream: Any) -> None:
    stream = open_stream(embed=True)
    await accepted(stream)
    worker.refuse(R.ERROR_REASON_DRAINING)
    stream.send(frame())

    with pytest.raises(tectum.Unavailable):
        await heard(stream)


async def test_a_worker_that_does_not_accept_it_again_in_time_is_asked_once_more(
    worker: FakeWorker, open_stream: Any
) -> None:
    stream = open_stream(embed=True, reconnect=30.0, timeout=0.5)
    await accepted(stream)
    worker.orders.delay = 5.0
    worker.refuse(R.ERROR_REASON_DRAINING)
    stream.send(frame())
    reading = asyncio.create_task(heard(stream))
    while len(worker.seen) < 2:
        await asyncio.sleep(0.01)
    worker.orders.delay = 0.0
    stream.send(frame())

    assert (await reading).frame_id == 1
    assert len(worker.seen) >= 3
    await closed(stream)


async def test_waiting_for_it_in_small_pieces_opens_it_anew_too(
    worker: FakeWorker, aclient: tectum.AsyncClient
) -> None:
    stream = aclient.stream(embed=True, reconnect=60.0)
    await accepted(stream)
    worker.refuse(R.ERROR_REASON_DRAINING)  # which says: in a second
    stream.send(frame())
    result = None
    for _ in range(200):
        if stream.lost:
            stream.send(frame())
        try:
            result = await asyncio.wait_for(anext(stream), 0.05)
            break
        except TimeoutError:
            continue

    assert result is not None
    assert result.frame_id > 0
    await stream.close()


@pytest.mark.parametrize("error", [OSError("fell off"), tectum.Unavailable("another one")])
async def test_an_error_in_the_frames_while_it_is_lost_is_raised(
    worker: FakeWorker, open_stream: Any, error: Exception
) -> None:
    def broken() -> Iterator[tectum.Frame]:
        yield frame()
        while not worker.orders.refusals:
            time.sleep(0.01)
            yield frame()
        raise error

    stream = open_stream(broken(), embed=True, reconnect=60.0)
    await heard(stream)
    worker.refuse(R.ERROR_REASON_DRAINING, times=50)

    with pytest.raises(type(error), match=str(error)):
        await asyncio.wait_for(collect(stream), 30)


async def test_closing_it_while_it_is_lost_ends_it(worker: FakeWorker, open_stream: Any) -> None:
    stream = open_stream(embed=True, reconnect=3600.0)
    await accepted(stream)
    reading = asyncio.create_task(collect(stream))
    worker.__exit__()
    await asyncio.sleep(0.5)

    await closed(stream)

    assert await asyncio.wait_for(reading, 10) == []


async def test_an_error_in_the_frames_ends_it_all_the_same(open_stream: Any) -> None:
    def broken() -> Iterator[tectum.Frame]:
        yield from paced(2)
        raise OSError("the camera fell off")

    with pytest.raises(OSError, match="the camera fell off"):
        await collect(open_stream(broken(), embed=True, reconnect=30.0))


async def test_once_its_frames_are_answered_it_ends(worker: FakeWorker, open_stream: Any) -> None:
    results = await collect(open_stream(paced(3), embed=True, reconnect=30.0))

    assert results[-1].frame_id == 2
    assert len(worker.seen) == 1
