"""Robots' cameras over what the engine can do, before the policy and without a clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Batching, Reason
from tectum_server.worker.engine.policy.cost import Cost, Preparation
from tectum_server.worker.engine.replay.arrivals import Arrival
from tectum_server.worker.engine.replay.cameras import Answer, Camera, Stream
from tectum_server.worker.engine.replay.simulation import simulate

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


def test_robots_of_which_more_frames_may_wait_have_no_more_turns_and_answers_in_order() -> None:
    draw, period_ms = random.Random(0), 1000 / HZ
    streams = [
        Stream(Camera(draw.uniform(0, period_ms), period_ms, 30 * HZ, 5000, depth=1 + robot % 16))
        for robot in range(ROBOTS)
    ]

    live(Cost(15, 25), streams)

    counts = [len(stream.answers) for stream in streams]
    assert max(counts) - min(counts) <= 0.2 * sum(counts) / ROBOTS
    for stream in streams:
        ids = [answer.frame for answer in stream.answers]
        assert ids == sorted(set(ids))
        assert all(one.newest - one.frame < stream.camera.depth for one in stream.answers)
        assert all_told(stream)
        assert not stream.failed


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


# ---------------------------------------------------------------- reading takes time

AS_PREDICTED, WILD = (1.0, 1.0), (0.5, 3.0)
"""What batches take, of what they should."""


def live_read(
    cost: Cost,
    streams: list[Stream],
    varies: tuple[float, float],
    reads_ms: float,
    max_batch: int = 16,
) -> float:
    """The same, each newer frame read before it can have a place."""
    busy, draw = list[float](), random.Random(0)
    simulate(
        Batching(256, max_batch, priced(cost), kept_share=0.05),
        [],
        lambda _, size: cost.of(size) * draw.uniform(*varies),
        lambda key, __, took_ms: None if key == "resize" else busy.append(took_ms),
        streams,
        reads_ms=reads_ms,
    )
    return sum(busy)


def outdated_ms(stream: Stream, answer: Answer) -> int:
    """How much newer the newest frame was, 0.1 s before the answer's batch began."""
    camera, newest = stream.camera, answer.newest
    while newest > answer.frame and camera.captured_ms(newest) > answer.began_ms - 100:
        newest -= 1
    return camera.captured_ms(newest) - answer.captured_ms


def all_told(stream: Stream) -> bool:
    """Whether each of its frames was, once."""
    told = len(stream.answers) + stream.superseded + stream.stale + stream.failed.total()
    return told == stream.camera.frames and len({one.frame for one in stream.answers}) == len(
        stream.answers
    )


@pytest.mark.parametrize(
    ("varies", "needs_ms"),
    [
        *[(varies, needs) for varies in (AS_PREDICTED, (0.7, 1.5), WILD) for needs in (0, 1)],
        (AS_PREDICTED, 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("cost", [Cost(35, 60), Cost(15, 25)], ids=str)
def test_every_answer_is_of_the_newest_frame_there_was_a_moment_before_whatever_batches_take(
    cost: Cost, varies: tuple[float, float], needs_ms: int
) -> None:
    seconds = 30
    streams = fleet(5000, seconds, needs=Preparation("resize", needs_ms) if needs_ms else None)

    busy_ms = live_read(cost, streams, varies, reads_ms=2.0)

    counts = [len(stream.answers) for stream in streams]
    assert all(outdated_ms(one, answer) <= 100 for one in streams for answer in one.answers)
    assert max(counts) - min(counts) <= max(2, 0.2 * sum(counts) / ROBOTS)
    assert busy_ms >= 0.95 * 1000 * seconds
    assert all(all_told(stream) and not stream.failed for stream in streams)


def test_of_batches_that_take_what_they_should_each_place_is_read_few_times() -> None:
    streams = fleet(5000, seconds=30)

    live_read(Cost(35, 60), streams, AS_PREDICTED, reads_ms=2.0)

    asked = [times for stream in streams for times in stream.reads]
    assert max(asked) <= 4


def test_no_picture_is_read_anew_that_could_not_be_prepared_in_time() -> None:
    streams = fleet(5000, seconds=30, needs=Preparation("resize", 60))

    busy_ms = live_read(Cost(35, 60), streams, AS_PREDICTED, reads_ms=2.0)

    asked = [times for stream in streams for times in stream.reads]
    assert sum(asked) <= 1.2 * len(asked)  # once, and little more
    assert busy_ms >= 0.5 * 1000 * 30  # what the engine prepares itself is one frame a place


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(5, 200), st.integers(1, 3000)),
        min_size=1,
        max_size=8,
    ),
    st.tuples(st.integers(0, 300), st.integers(1, 200)),
    st.floats(0, 30),
    st.integers(0, 40),
    st.integers(1, 8),
    st.integers(1, 4),
)
@settings(max_examples=40)
def test_however_slowly_frames_are_read_each_is_told_of_once_and_no_place_is_asked_without_end(
    cameras: list[tuple[int, int, int]],
    priced_at: tuple[int, int],
    reads_ms: float,
    needs_ms: int,
    max_batch: int,
    depth: int,
) -> None:
    cost = Cost(*priced_at)
    needs = Preparation("resize", needs_ms) if needs_ms else None
    streams = [
        Stream(
            Camera(
                first,
                period,
                20,
                round(cost.of(1)) + needs_ms + lifespan,
                preparation=needs,
                depth=depth,
            )
        )
        for first, period, lifespan in cameras
    ]

    live_read(cost, streams, WILD, reads_ms, max_batch)

    assert all(all_told(stream) for stream in streams)
    for stream in streams:
        ids = [answer.frame for answer in stream.answers]
        assert ids == sorted(ids)
        assert all(times <= 20 for times in stream.reads)


@given(st.lists(st.integers(0, 2000), min_size=1, unique=True))
def test_a_camera_that_was_recorded_films_when_it_did(moments: list[int]) -> None:
    captures = tuple(sorted(moments))
    stream = Stream(Camera(captures[0], 0, len(captures), 5000, captures_ms=captures))

    simulate(Batching(256, 1, lambda _: Cost(1, 0)), [], lambda *_: 1, streams=[stream])

    assert stream.captured == len(captures)
    assert {one.captured_ms for one in stream.answers} <= set(captures)
    assert len(stream.answers) + stream.superseded == len(captures)
