"""How far the worker's clock is ahead: found out by four timestamps, and told with each frame."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.fake_worker import FakeWorker
from tests.client.streams import SMALL, accepted

import tectum
from tectum.clock import FIRST_PROBES, LATER, SAMPLES, SOON, Clock, Sample, sample
from tectum.durations import seconds

AHEAD = 3600.0
DELAYS = st.floats(0.0, 5.0)


# ---------------------------------------------------------------- the arithmetic


@given(ahead=st.floats(-1e9, 1e9), there=DELAYS, inside=DELAYS, back=DELAYS)
def test_an_offset_is_off_by_at_most_half_of_the_time_on_the_way(
    ahead: float, there: float, inside: float, back: float
) -> None:
    sent = 1.7e9
    received = sent + there + ahead
    answered = received + inside

    found = sample(sent, received, answered, answered - ahead + back)

    assert found.delay == pytest.approx(there + back, abs=1e-5)
    assert abs(found.offset - ahead) <= (there + back) / 2 + 1e-5


@given(st.lists(st.tuples(DELAYS, DELAYS), min_size=1, max_size=SAMPLES))
def test_the_best_sample_is_the_one_that_was_least_long_on_its_way(
    ways: list[tuple[float, float]],
) -> None:
    clock = Clock()

    for there, back in ways:
        clock.hear(sample(0.0, AHEAD + there, AHEAD + there, there + back))

    assert clock.best is not None
    assert abs(clock.best.offset - AHEAD) <= min(a + b for a, b in ways) / 2 + 1e-9


def test_what_is_too_long_ago_counts_no_more() -> None:
    clock = Clock()
    assert clock.best is None

    clock.hear(Sample(offset=1.0, delay=0.001))
    for _ in range(SAMPLES):
        clock.hear(Sample(offset=1.02, delay=0.1))

    assert clock.best == Sample(1.02, 0.1)


@pytest.mark.parametrize("offset", [AHEAD, -AHEAD])
def test_once_a_clock_was_set_nothing_older_counts(offset: float) -> None:
    clock = Clock()
    for _ in range(SAMPLES):
        clock.hear(Sample(offset=0.0, delay=0.001))

    clock.hear(sample(100.0, 100.01 + offset, 100.01 + offset, 100.5))

    assert clock.best is not None
    assert clock.best.offset == pytest.approx(offset, abs=0.3)


def test_a_sample_during_which_a_clock_was_set_counts_nothing_and_lets_nothing_count() -> None:
    clock = Clock()
    clock.hear(Sample(offset=0.0, delay=0.001))

    clock.hear(sample(sent=100.0, received=100.1, answered=100.1, heard=50.0))

    assert clock.best is None
    clock.hear(Sample(offset=50.0, delay=0.2))
    assert clock.best == Sample(50.0, 0.2)


def test_it_asks_soon_at_first_and_then_now_and_then() -> None:
    clock, now, asked = Clock(), 0.0, []

    while now < 3 * LATER:
        if clock.due(now):
            clock.asked(now)
            asked.append(now)
        now += 0.01

    assert len(asked) == FIRST_PROBES + 2
    gaps = [b - a for a, b in pairwise(asked)]
    assert gaps[: FIRST_PROBES - 1] == pytest.approx([SOON] * (FIRST_PROBES - 1), abs=0.011)
    assert gaps[FIRST_PROBES - 1 :] == pytest.approx([LATER] * 2, abs=0.011)


# ---------------------------------------------------------------- streams


async def sent(stream: Any, worker: FakeWorker, *frames: tectum.Frame) -> None:
    """Send each once the one before it is answered."""
    await accepted(stream)
    for frame in frames:
        stream.send(frame)
        if isinstance(stream, tectum.AsyncStream):
            await anext(stream)
        else:
            await asyncio.to_thread(next, stream)
    await asyncio.to_thread(stream.close) if isinstance(stream, tectum.Stream) else None
    if isinstance(stream, tectum.AsyncStream):
        await stream.close()


def offsets(worker: FakeWorker) -> list[float | None]:
    return [
        seconds(one.clock_offset) if one.HasField("clock_offset") else None for one in worker.frames
    ]


@pytest.fixture(params=["sync", "async"])
def open_stream(
    request: pytest.FixtureRequest, client: tectum.Client, aclient: tectum.AsyncClient
) -> Any:
    return client.stream if request.param == "sync" else aclient.stream


async def test_frames_say_how_far_the_clocks_are_apart_from_the_first_on(
    worker: FakeWorker, open_stream: Any
) -> None:
    worker.orders.clock_ahead = AHEAD
    stream = open_stream(embed=True)

    await sent(stream, worker, *(tectum.Frame(SMALL, captured_at=time.time()) for _ in range(2)))

    assert offsets(worker) == pytest.approx([AHEAD, AHEAD], abs=1.0)
    assert stream.clock_offset == pytest.approx(AHEAD, abs=1.0)
    setup = worker.seen[-1].request
    assert setup.client_time.ToSeconds() == pytest.approx(time.time(), abs=30)


async def test_the_clock_is_asked_for_before_a_frame_and_not_before_each(
    worker: FakeWorker, open_stream: Any
) -> None:
    worker.orders.clock_ahead = -AHEAD

    await sent(open_stream(embed=True), worker, *[tectum.Frame(SMALL)] * 5)

    assert 1 <= len(worker.probes) <= FIRST_PROBES
    assert all(one.client_time.ToSeconds() > 0 for one in worker.probes)
    assert offsets(worker) == [None] * 5  # a frame that the worker times needs none


async def test_without_an_own_clock_nothing_is_asked_and_nothing_added(
    worker: FakeWorker, open_stream: Any
) -> None:
    worker.orders.clock_ahead = AHEAD
    stream = open_stream(embed=True, own_clock=False)

    await sent(stream, worker, tectum.Frame(SMALL, captured_at=time.time()))

    assert (worker.probes, offsets(worker), stream.clock_offset) == ([], [None], None)


async def test_a_worker_that_answers_no_probes_is_asked_none(
    worker: FakeWorker, open_stream: Any
) -> None:
    await sent(open_stream(embed=True), worker, tectum.Frame(SMALL, captured_at=time.time()))

    assert (worker.probes, offsets(worker)) == ([], [None])
