"""Frames off the wire in order, and the recent ones kept to be paired."""

import gc
import math
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import INTERVAL, TOLERANCE
from tests.server.worker.asking import IMAGE
from tests.server.worker.frames import FAILED, OK, PAIRED, frame
from tests.server.worker.messages import reason, seconds
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, until

from tectum.v1 import errors_pb2, model_pb2, stream_pb2
from tectum_server.worker.front.memory import Memory
from tectum_server.worker.front.methods.latents import Interval
from tectum_server.worker.front.stream import frames as kept
from tectum_server.worker.front.stream.frames import Arrivals, Frame, Ring

SPEC = model_pb2.LatentActionInput(interval=seconds(0.05), tolerance=seconds(0.01))
BACKWARDS = errors_pb2.ERROR_REASON_INTERVAL_MISMATCH


def shown(
    number: int,
    at: float,
    nbytes: int = 3,
    memory: Memory | None = None,
    expires: float = math.inf,
) -> Frame:
    """A frame that was decoded to so many bytes."""
    share = (memory or Memory(2**20)).share()
    share.take_message(nbytes)
    pixels = np.zeros((1, nbytes // 3, 3), np.uint8)
    return Frame(number, pixels, at, timed=True, expires=expires, memory=share)


def read(arrivals: Arrivals, sent: stream_pb2.StreamFrame, memory: Memory | None = None) -> Frame:
    """A frame as a stream reads it."""
    return arrivals.read(sent, sent.ByteSize(), (memory or Memory(2**20)).share())


# ---------------------------------------------------------------- their times


def reasons(*times: float | None) -> list[int | None]:
    """What is wrong with frames captured then."""
    arrivals = Arrivals(1.0)
    found = [read(arrivals, frame(number, at)) for number, at in enumerate(times)]
    return [None if f.wrong is None else f.wrong.reason for f in found]


@pytest.mark.parametrize(
    ("times", "wrong"),
    [
        ((1.0, 1.1, 1.2), [None, None, None]),
        ((1.0, 0.7, 0.8), [None, BACKWARDS, None]),
        ((1.0, 1.0), [None, BACKWARDS]),
        ((1.0, None, 0.9, None, 0.95), [None, None, BACKWARDS, None, None]),
        # A clock that jumps ahead and is set right again costs one frame.
        ((1.0, 5000.0, 1.2, 1.3), [None, None, BACKWARDS, None]),
    ],
)
def test_a_frame_that_goes_back_in_time_is_wrong_by_itself(
    times: tuple[float | None, ...], wrong: list[int | None]
) -> None:
    assert reasons(*times) == wrong


def test_a_frame_that_goes_back_in_time_fails_and_the_stream_goes_on(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, now = camera(), time.time()
    stream.ready()
    results = []
    for number, at in ((1, now), (2, now - 0.3), (3, now + 0.1)):
        stream.send(frame(number, at))
        results.append(stream.result())

    assert [r.status for r in results] == [OK, FAILED, OK]
    error = results[1].error
    assert (reason(error.reason), error.field) == ("INTERVAL_MISMATCH", "frame.captured_at")
    assert "0.3 s before the last" in error.message


@pytest.mark.parametrize("moment", [-(2**63), 2**63 - 1, -62_135_596_801])
def test_a_moment_that_no_clock_shows_fails_its_frame_alone(
    camera: Callable[..., Camera], engine: ScriptedEngine, moment: int
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()
    odd = frame(1)
    odd.captured_at.CopyFrom(Timestamp(seconds=moment))

    stream.send(odd)
    failed = stream.result()
    stream.send(frame(2, time.time()))

    error = failed.error
    assert (failed.status, reason(error.reason)) == (FAILED, "FIELD_OUT_OF_RANGE")
    assert error.field == "frame.captured_at"
    assert failed.age.ToSeconds() < 60
    assert stream.result().status == OK


@pytest.mark.parametrize("lifespan", [0.0, 61.0])
def test_a_lifespan_that_makes_no_sense_fails_its_frame_alone(
    camera: Callable[..., Camera], engine: ScriptedEngine, lifespan: float
) -> None:
    engine.answers(zeros)
    stream, now = camera(), time.time()
    stream.ready()

    stream.send(frame(1, now, lifespan))
    failed = stream.result()
    stream.send(frame(2, now + 0.1))

    assert (failed.status, reason(failed.error.reason)) == (FAILED, "FIELD_OUT_OF_RANGE")
    assert failed.error.field == "frame.lifespan"
    assert stream.result().status == OK
    assert stream.finish() == []


@pytest.mark.parametrize(("year", "status"), [(1, "STALE"), (9999, "OK")])
def test_the_oldest_and_the_latest_moment_have_an_answer(
    camera: Callable[..., Camera], engine: ScriptedEngine, year: int, status: str
) -> None:
    engine.answers(zeros)
    stream, odd = camera(), frame(1)
    stream.ready()
    odd.captured_at.FromJsonString(f"{year:04}-01-01T00:00:00Z")

    stream.send(odd)

    assert stream_pb2.FrameStatus.Name(stream.result().status) == f"FRAME_STATUS_{status}"


# ---------------------------------------------------------------- what is kept


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_what_is_kept_is_all_that_a_later_frame_could_be_paired_with(gaps: list[int]) -> None:
    ring, everything, now = Ring(Interval(SPEC)), list[Frame](), 0
    for number, gap in enumerate(gaps):
        now += gap  # milliseconds
        newest = shown(number, now / 1000)
        everything.append(newest)
        ring.add(newest)

        fits = [f for f in everything[:-1] if 40 <= now - round(f.captured_at * 1000) <= 60]
        best = min(fits, key=lambda f: abs(now - 50 - round(f.captured_at * 1000)), default=None)
        found = ring.before(newest)
        assert (found is None) is (best is None)
        if found is not None and best is not None:
            away = [abs(now - 50 - round(f.captured_at * 1000)) for f in (found, best)]
            assert away[0] == away[1]
    assert len(ring) <= 61


@given(st.integers(1, 16), st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_what_frames_that_wait_could_be_paired_with_is_kept_for_them(
    depth: int, gaps: list[int]
) -> None:
    ring, waiting, paired, now = Ring(Interval(SPEC)), list[Frame](), dict[int, Frame | None](), 0
    for number, gap in enumerate(gaps):
        now += gap
        newest = shown(number, now / 1000)
        waiting = [*waiting, newest][-depth:]
        ring.add(newest, waiting[0])
        paired[number] = ring.before(newest)

        assert all(ring.before(frame) is paired[frame.frame_id] for frame in waiting)


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_RING_BYTES", 1000)
    monkeypatch.setattr(kept, "_RING_FRAMES", 8)
    ring = Ring(Interval(SPEC))

    for number in range(6):
        ring.add(shown(number, number / 1000, 300))
    assert len(ring) == 3
    ring.add(shown(6, 0.006, 3000))
    assert len(ring) == 1  # the newest is always kept
    for number in range(7, 30):
        ring.add(shown(number, number / 1000))
    assert len(ring) == 8


def test_frames_without_a_time_are_not_kept() -> None:
    ring, arrivals = Ring(Interval(SPEC)), Arrivals(1.0)

    ring.add(read(arrivals, frame(1)))
    ring.add(read(arrivals, frame(2, 1.0)))

    assert len(ring) == 1


# ---------------------------------------------------------------- what a stream holds


def pixels_of(engine: ScriptedEngine) -> Any:
    """A weak reference to the newest pixels that the engine was given."""
    return weakref.ref(engine.begun.get(timeout=30).items[0].arrays[-1])


def gone(pixels: Any) -> bool:
    gc.collect()
    return pixels() is None


def test_a_stream_of_vectors_keeps_nothing_of_a_frame_it_has_answered(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()
    stream.send(frame(1, time.time()))
    stream.result()

    pixels = pixels_of(engine)

    until(lambda: gone(pixels))  # the engine's own hold on them ends a moment after its answer

    stream.send(frame(2, time.time()))
    assert stream.result().frame_id == 2
    assert pixels() is None


def test_a_stream_of_pairs_keeps_a_frame_for_as_long_as_it_may_be_paired(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, now = camera(latent_actions=True), time.time()
    stream.ready()
    stream.send(frame(1, now))
    stream.result()
    first = pixels_of(engine)

    stream.send(frame(2, now + INTERVAL))
    assert stream.result().latent_action_status == PAIRED
    assert not gone(first)
    while not engine.begun.empty():
        engine.begun.get()
    stream.send(frame(3, now + INTERVAL + TOLERANCE + 0.001))
    assert stream.result().status == OK

    until(lambda: gone(first))


def test_a_frame_is_held_as_sent_or_as_pixels_but_not_as_both(
    camera: Callable[..., Camera], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_ever, held = Arrivals.read, list[Frame]()

    def notice(*given: Any) -> Frame:
        held.append(as_ever(*given))
        held[-1].keep()
        return held[-1]

    monkeypatch.setattr(Arrivals, "read", notice)
    engine.answers(zeros)
    stream = camera()
    stream.ready()
    stream.send(frame(1))
    stream.result()

    assert isinstance(held[0].content, np.ndarray)
    until(lambda: held[0].memory.held == len(IMAGE.raw.data))
    held[0].drop()
    assert held[0].memory.held == 0
    assert not isinstance(held[0].content, np.ndarray)


# ---------------------------------------------------------------- what it takes of the memory


def test_a_frame_takes_memory_until_the_last_one_drops_it() -> None:
    memory, ring = Memory(1000), Ring(Interval(SPEC))
    first = shown(1, 1.0, 300, memory)
    ring.add(first)
    second = shown(2, 1.05, 300, memory)
    ring.add(second)
    assert memory.used == 600

    first.drop()
    assert memory.used == 600
    ring.add(shown(3, 1.1, 300, memory))
    assert (len(ring), memory.used) == (2, 600)
    ring.clear()
    assert memory.used == 600  # both are still on their way
    second.drop()
    assert memory.used == 300


def test_a_frame_without_room_makes_its_own_stream_forget_the_oldest() -> None:
    memory, ring, arrivals = Memory(1000), Ring(Interval(SPEC)), Arrivals(1.0)
    for number in range(3):
        kept_one = shown(number, 1 + number / 100, 300, memory)
        ring.add(kept_one)
        kept_one.drop()

    found = arrivals.read(frame(9, 1.03), 500, memory.share(spare=ring.shrink))

    assert found.wrong is None
    assert (len(ring), memory.used) == (1, 800)


def test_a_frame_for_which_forgetting_is_not_enough_is_told_to_come_back() -> None:
    memory, ring = Memory(1000), Ring(Interval(SPEC))
    memory.share().take_message(900)

    found = Arrivals(1.0).read(frame(9, 1.03), 500, memory.share(spare=ring.shrink))

    assert found.wrong is not None
    assert found.wrong.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    assert memory.used == 900


def test_what_a_quiet_camera_left_gives_way_to_anybody() -> None:
    memory, ring = Memory(1000), Ring(Interval(SPEC))
    memory.on_shortage.add(ring.forget_the_useless)
    now = time.monotonic()
    for number, expires in ((1, now - 1), (2, now + 60)):
        left = shown(number, number / 100, 400, memory, expires)
        ring.add(left)
        left.drop()

    memory.share().take_message(500)

    assert (len(ring), memory.used) == (1, 900)
