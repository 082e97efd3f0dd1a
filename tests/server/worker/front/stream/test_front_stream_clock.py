"""A stream whose camera has another clock: ages on the worker's, intervals on the camera's."""

import time
from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.bundles import INTERVAL
from tests.server.worker.frames import FAILED, OK, PAIRED, STALE, UNPAIRED, frame
from tests.server.worker.messages import reason
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera

from tectum.v1 import stream_pb2

AHEAD = 7200.0
"""Seconds that the worker's clock is ahead of the camera's."""
Request = stream_pb2.StreamPerceptionRequest


def skewed(number: int, ago: float = 0.0, offset: float = AHEAD) -> stream_pb2.StreamFrame:
    """A frame of a camera whose clock is behind, captured a while ago, that says so."""
    sent = frame(number, time.time() - AHEAD - ago, lifespan=20.0)
    sent.clock_offset.FromNanoseconds(round(offset * 1e9))
    return sent


def probe(seconds: int) -> Request:
    asked = Request()
    asked.probe.client_time.FromSeconds(seconds)
    return asked


def test_a_frames_age_counts_by_the_workers_clock(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    stream.send(skewed(1, ago=5.0))
    fresh = stream.result()
    stream.send(skewed(2, ago=-10.0, offset=AHEAD - 40.0))
    old = stream.result()

    assert fresh.status == OK
    assert 5.0 <= fresh.age.ToSeconds() < 20.0
    assert old.status == STALE


def test_without_an_offset_a_clock_that_is_behind_makes_frames_stale(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    stream.send(frame(1, time.time() - AHEAD, lifespan=20.0))

    assert stream.result().status == STALE


def test_how_far_frames_lie_apart_is_on_the_cameras_clock(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, began = camera(latent_actions=True, embed=False), time.time() - AHEAD
    stream.ready()

    results = []
    for number, offset in enumerate((AHEAD, AHEAD + 0.4, AHEAD - 0.3)):  # it is found out better
        sent = frame(number, began + number * INTERVAL)
        sent.clock_offset.FromNanoseconds(round(offset * 1e9))
        stream.send(sent)
        results.append(stream.result())

    assert [r.latent_action_status for r in results] == [UNPAIRED, PAIRED, PAIRED]
    assert [r.latent_action.interval.ToMicroseconds() for r in results[1:]] == pytest.approx(
        [INTERVAL * 1e6] * 2, abs=1
    )


def test_probes_are_answered_in_order_and_are_no_frames(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, before = camera(), time.time_ns()
    ready = stream.ready()

    stream.say(probe(5))
    stream.say(probe(6))
    told = [next(stream.call).clock for _ in range(2)]
    stream.send(frame(1))

    assert [one.client_time.ToSeconds() for one in told] == [5, 6]
    times = [ready.received_time, ready.worker_time]
    times += [moment for one in told for moment in (one.received_time, one.sent_time)]
    nanoseconds = [moment.ToNanoseconds() for moment in times]
    assert nanoseconds[:2] == sorted(nanoseconds[:2])
    assert nanoseconds[2] <= nanoseconds[3]
    assert nanoseconds[4] <= nanoseconds[5]
    assert all(before - 10**9 <= one <= time.time_ns() + 10**9 for one in nanoseconds)
    assert [(r.frame_id, r.status) for r in [stream.result()]] == [(1, OK)]


def test_a_probe_with_anything_else_in_it_ends_the_stream(
    camera: Callable[..., Camera],
) -> None:
    stream = camera()
    stream.ready()

    stuffed = probe(5)
    stuffed.probe.MergeFromString(b"\x7a\x80\x20" + bytes(4096))  # field 15, which there is not
    stream.say(stuffed)
    told = stream.failed()

    assert (told.reason, told.fields) == ("FIELD_OUT_OF_RANGE", ("probe",))


@pytest.mark.parametrize(
    "offset",
    [Duration(seconds=1, nanos=-5), Duration(nanos=10**9), Duration(seconds=315_576_000_001)],
)
def test_an_offset_that_is_none_fails_its_frame(
    camera: Callable[..., Camera], engine: ScriptedEngine, offset: Duration
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    sent = frame(1, time.time())
    sent.clock_offset.CopyFrom(offset)
    stream.send(sent)
    result = stream.result()

    assert (result.status, reason(result.error.reason)) == (FAILED, "FIELD_OUT_OF_RANGE")
    assert result.error.field == "frame.clock_offset"
