"""Streams of which more than one frame may wait, before a scripted engine."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bundles import INTERVAL, picture
from tests.server.worker.frames import OK, PAIRED, SUPERSEDED, begin, frame, statuses
from tests.server.worker.messages import raw
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera

PICTURES = [picture(seed, 8, 8) for seed in range(6)]


def send(stream: Camera, *numbers: int) -> None:
    """Frames whose pictures tell their numbers."""
    for number in numbers:
        stream.send(frame(number, image=raw(PICTURES[number])))


def begun(stream: Camera, engine: ScriptedEngine) -> Camera:
    """A stream whose first frame has the place."""
    stream.ready()
    begin(stream, engine)
    return stream


def test_as_many_frames_as_may_wait_are_all_answered_in_order(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = begun(camera(depth=4), engine)

    send(stream, 2, 3, 4, 5)
    engine.answers(zeros)
    results = stream.finish()

    assert [(result.frame_id, result.status) for result in results] == [
        (number, OK) for number in range(1, 6)
    ]


def test_one_more_supersedes_the_oldest_that_waits(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = begun(camera(depth=2), engine)

    send(stream, 2, 3, 4)
    outdone = stream.result()
    engine.answers(zeros)

    assert (outdone.frame_id, outdone.status) == (2, SUPERSEDED)
    assert statuses(stream.finish()) == {1: OK, 3: OK, 4: OK}


def test_the_place_is_for_the_oldest_of_the_newest(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = begun(camera(depth=2), engine)
    send(stream, 2, 3, 4)
    stream.result()

    (item,) = engine.newest_now()
    engine.settle(taken=True)
    nothing = engine.newest_now()
    engine.answers(zeros)

    assert (item.arrays[0] == PICTURES[3]).all()
    assert nothing == ()  # no more wait than may
    assert statuses(stream.finish()) == {1: SUPERSEDED, 3: OK, 4: OK}


def test_a_frame_that_waited_is_paired_with_the_one_before_it(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream, now = camera(latent_actions=True, depth=8), time.time()
    stream.ready()
    stream.send(frame(0, now))
    engine.begun.get(timeout=30)

    for number in range(1, 10):
        stream.send(frame(number, now + number * INTERVAL))
    outdone = stream.result()  # so that all others wait
    engine.answers(zeros)
    results = {result.frame_id: result for result in stream.finish()}

    assert (outdone.frame_id, outdone.status) == (1, SUPERSEDED)
    assert statuses(list(results.values())) == dict.fromkeys((0, *range(2, 10)), OK)
    assert [results[n].latent_action_status for n in range(2, 10)] == [PAIRED] * 8
    assert [results[n].earlier_frame_id for n in range(2, 10)] == list(range(1, 9))
