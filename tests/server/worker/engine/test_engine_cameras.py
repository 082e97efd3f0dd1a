"""Robots' cameras over what the engine can do, before the policy and without a clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tectum_server.worker.engine.batching import Batching, Reason
from tectum_server.worker.engine.cameras import Answer, Camera, Stream
from tectum_server.worker.engine.cost import Cost, Preparation
from tectum_server.worker.engine.simulation import Arrival, simulate

SECONDS, ROBOTS, HZ = 60, 32, 30


def fleet(
    lifespan_ms: int,
    seconds: int = SECONDS,
    robots: int = ROBOTS,
    needs: Preparation | None = None,
) -> list[Stream]:
    """Cameras at 30 Hz, each with a phase of its own."""
    draw, period_ms = random.Random(0), 1000 / HZ
    return [
        Stream(
            Camera(
                draw.uniform(0, period_ms),
                period_ms,
                seconds * HZ,
                lifespan_ms,
                preparation=needs,
            )
        )
        for _ in range(robots)
    ]


def priced(cost: Cost) -> Callable[[Hashable], Cost]:
    """What a batch costs; a preparation takes a millisecond for each of its size."""
    return lambda key: Cost(0, key.size) if isinstance(key, Preparation) else cost


def live(cost: Cost, streams: list[Stream], max_batch: int = 32) -> float:
    """Let them be answered; gives the milliseconds that the engine computed."""
    busy = list[float]()
    policy = Batching(256, max_batch, priced(cost), kept_share=0.05)
    simulate(
        policy,
        [],
        lambda _, size: cost.of(size),
        lambda key, __, took_ms: None if key == "resize" else busy.append(took_ms),
        streams,
    )
    return sum(busy)


def check(streams: list[Stream], cost: Cost, max_batch: int = 32) -> None:
    """What holds of every answer, and of every frame."""
    for stream in streams:
        camera = stream.camera
        for answer in stream.answers:
            assert answer.frame == answer.newest
            assert answer.began_ms < answer.captured_ms + camera.lifespan_ms
            oldest_ms = camera.lifespan_ms + cost.of(max_batch)
            assert answer.answered_ms - answer.captured_ms <= oldest_ms
        told = len(stream.answers) + stream.superseded + stream.stale + stream.failed.total()
        assert told == camera.frames
        assert not stream.failed


@pytest.mark.parametrize("lifespan_ms", [100, 300, 1000, 2000, 5000])
@pytest.mark.parametrize("cost", [Cost(35, 60), Cost(15, 25), Cost(10, 10)], ids=str)
def test_robots_over_capacity_are_answered_alike_whatever_their_lifespan(
    cost: Cost, lifespan_ms: int
) -> None:
    streams = fleet(lifespan_ms)

    busy_ms = live(cost, streams)

    rates = [len(stream.answers) / SECONDS for stream in streams]
    assert max(rates) - min(rates) <= 0.2 * sum(rates) / ROBOTS
    assert busy_ms >= 0.99 * 1000 * SECONDS  # there is always work, and it is done
    check(streams, cost)


@pytest.mark.parametrize("lifespan_ms", [200, 1000, 5000])
@pytest.mark.parametrize("each_ms", [1, 4, 22])
def test_robots_whose_pictures_are_to_be_prepared_are_answered_alike(
    each_ms: int, lifespan_ms: int
) -> None:
    cost, seconds = Cost(35, 60), 30
    streams = fleet(lifespan_ms, seconds, needs=Preparation("resize", each_ms))

    live(cost, streams)

    counts = [len(stream.answers) for stream in streams]
    assert max(counts) - min(counts) <= max(2, 0.2 * sum(counts) / ROBOTS)
    assert sum(counts) >= 0.9 * 1000 * seconds / (cost.of(1) + each_ms)
    for stream in streams:
        assert all(answer.frame == answer.newest for answer in stream.answers)
        told = len(stream.answers) + stream.superseded + stream.stale + stream.failed.total()
        assert told == stream.camera.frames
        assert not stream.failed


def test_a_slow_camera_is_answered_each_of_its_frames_among_fast_ones() -> None:
    cost = Cost(10, 10)
    slow = Stream(Camera(0.0, 1000.0, 20, 1000))
    streams = [slow, *fleet(1000, seconds=20)]

    live(cost, streams)

    assert len(slow.answers) == 20
    check(streams, cost)


def test_a_camera_that_went_quiet_is_told_that_its_last_frame_is_stale() -> None:
    quiet = Stream(Camera(0.0, 33.0, 3, 200))
    streams = [*fleet(1000, seconds=5), quiet]

    live(Cost(35, 60), streams, max_batch=4)

    assert [answer.frame for answer in quiet.answers] == [0]  # the engine was free
    assert (quiet.superseded, quiet.stale) == (1, 1)


def test_frames_that_no_engine_could_answer_in_their_lifespan_fail_for_that() -> None:
    streams = fleet(60, seconds=2, robots=2)

    live(Cost(35, 60), streams)

    assert {reason for stream in streams for reason in stream.failed} == {
        Reason.DEADLINE_INFEASIBLE
    }


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(5, 200), st.integers(1, 400)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 40),
    st.integers(1, 40),
    st.integers(1, 8),
)
@settings(max_examples=40)
def test_whatever_the_cameras_every_frame_is_told_of_and_nobody_waits_while_another_has_two_turns(
    cameras: list[tuple[int, int, int]], fixed_ms: int, each_ms: int, max_batch: int
) -> None:
    cost = Cost(fixed_ms, each_ms)
    streams = [
        Stream(Camera(first, period, 20, round(cost.of(1)) + lifespan))
        for first, period, lifespan in cameras
    ]

    live(cost, streams, max_batch)

    check(streams, cost, max_batch)
    for stream in streams:
        for before, after in zip(stream.answers, stream.answers[1:], strict=False):
            if after.captured_ms <= before.answered_ms:  # it had something to say all along
                turns = [began_between(other, before, after) for other in streams]
                assert max(turns) <= 2


def began_between(stream: Stream, before: Answer, after: Answer) -> int:
    """How many answers to another one were begun after one answer and before the next."""
    return sum(before.began_ms < one.began_ms < after.began_ms for one in stream.answers)


@given(st.integers(1, 30), st.integers(0, 3), st.integers(120, 500))
@example(29, 3, 300)  # a turn of one frame, and then a whole one
@settings(max_examples=12)
def test_calls_that_are_let_in_among_streams_are_in_time(
    a_second: int, seed: int, patience_ms: int
) -> None:
    cost = Cost(0, 30)  # batches of any size take as long for each item
    draw, at_ms, calls = random.Random(seed), 0.0, list[Arrival]()
    while (at_ms := at_ms + draw.expovariate(a_second / 1000)) < 5000:
        calls.append(Arrival(int(at_ms), ("call",), 1, patience_ms))
    streams = fleet(1000, seconds=5)
    policy = Batching(256, 8, lambda _: cost, max_block_ms=90, kept_share=0.05)

    told = simulate(policy, calls, lambda _, size: cost.of(size), streams=streams)

    ends = Counter(one.in_time if one.reason is None else one.reason for one in told)
    assert set(ends) <= {True, Reason.DEADLINE_UNREACHABLE}
    assert all(stream.answers for stream in streams)
