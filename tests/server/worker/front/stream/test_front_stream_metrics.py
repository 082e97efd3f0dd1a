"""A stream is seen in the metrics while it lives: that it is open, its frames, and their age."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.server.worker.asking import NO_IMAGE
from tests.server.worker.frames import FAILED, OK, SUPERSEDED, begin, frame
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, until


def test_streams_are_counted_while_they_are_open(
    camera: Callable[..., Camera], front: Fronted
) -> None:
    assert front.metric("tectum_streams_open") == 0

    streams = [camera(), camera()]
    for stream in streams:
        stream.ready()

    assert front.metric("tectum_streams_open") == 2
    streams[0].finish()
    until(lambda: front.metric("tectum_streams_open") == 1)
    streams[1].close()
    until(lambda: front.metric("tectum_streams_open") == 0)


def test_frames_are_counted_by_what_was_told_of_them_before_their_stream_ends(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    stream.send(frame(2))
    stream.send(frame(3, image=NO_IMAGE))
    told = [stream.result().status]
    engine.answers(zeros)
    told += [stream.result().status, stream.result().status]

    def count(status: str) -> float | None:
        return front.metric("tectum_stream_frames_total", model="full", status=status)

    assert sorted(told) == sorted([SUPERSEDED, OK, FAILED])
    assert [count(one) for one in ("OK", "SUPERSEDED", "FAILED", "STALE")] == [1, 1, 1, None]


def test_the_age_of_answers_is_that_when_they_were_sent(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()
    stream.send(frame(1, at=time.time() - 7.0, lifespan=60.0))
    told = stream.result().age.ToMicroseconds() / 1e6
    stream.send(frame(2, at=time.time() - 70.0, lifespan=60.0))  # is stale, and no answer
    stream.result()

    assert front.metric("tectum_stream_age_seconds_count") == 1
    total = front.metric("tectum_stream_age_seconds_sum")
    assert total is not None
    assert told <= total + 1e-3
    assert total >= 7.0
