"""A frame that waits in the engine's line is outdone by a newer one, and every frame is answered.

Before a scripted engine, which asks for newer content as a busy one does.
"""

import random
import time
from collections.abc import Callable

import numpy as np
import pytest
from tests.bundles import INTERVAL, picture
from tests.server.worker.asking import IMAGE, NO_IMAGE
from tests.server.worker.frames import (
    FAILED,
    OK,
    PAIRED,
    STALE,
    SUPERSEDED,
    begin,
    frame,
    statuses,
)
from tests.server.worker.messages import raw
from tests.server.worker.scripted import ScriptedEngine, items_of, zeros
from tests.server.worker.serving import Camera, Fronted, until

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import EmbedImages, LatentActions

PICTURES = [picture(seed, 8, 8) for seed in range(6)]


def send(stream: Camera, number: int, at: float | None = None, lifespan: float = 60.0) -> None:
    """A frame whose picture tells its number."""
    stream.send(frame(number, at, lifespan, image=raw(PICTURES[number])))


def renewed(stream: Camera, engine: ScriptedEngine, number: int) -> None:
    """Send a frame, and let it take the place of the one that waits."""
    send(stream, number)
    (item,) = engine.newest()
    assert (item.arrays[0] == PICTURES[number]).all()
    engine.settle(taken=True)


def ended(stream: Camera, engine: ScriptedEngine) -> list[stream_pb2.FrameResult]:
    engine.answers(zeros)
    return stream.finish()


def test_the_place_is_answered_for_the_frame_that_has_it_in_the_end(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)

    renewed(stream, engine, 2)
    renewed(stream, engine, 3)
    results = ended(stream, engine)

    assert statuses(results) == {1: SUPERSEDED, 2: SUPERSEDED, 3: OK}
    assert engine.begun.empty()  # one place was enough for three frames


def test_frames_that_are_outdone_are_counted(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    renewed(stream, engine, 2)

    ended(stream, engine)

    assert front.metric("tectum_stream_frames_total", model="full", status="SUPERSEDED") == 1


def test_what_came_too_late_is_computed_next(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    send(stream, 2)
    engine.newest()
    engine.settle(taken=False)

    results = ended(stream, engine)

    assert statuses(results) == {1: OK, 2: OK}
    assert (engine.begun.get(timeout=30).items[0].arrays[0] == PICTURES[2]).all()


def test_what_came_too_late_is_outdone_by_what_came_since(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    send(stream, 2)
    engine.newest()
    send(stream, 3)
    send(stream, 4)
    assert stream.result().status == SUPERSEDED  # the third, so that the fourth waits
    engine.settle(taken=False)

    assert statuses(ended(stream, engine)) == {1: OK, 2: SUPERSEDED, 4: OK}


def test_what_is_withdrawn_while_it_is_waited_for_is_harmless(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    asked = engine.begin_newest()

    asked.cancel()
    send(stream, 2)

    assert statuses(ended(stream, engine)) == {1: OK, 2: OK}


def test_a_newer_frame_that_cannot_be_read_fails_alone(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    asked = engine.begin_newest()
    stream.send(frame(2, image=NO_IMAGE))
    send(stream, 3)

    (item,) = items_of(asked.result(30))
    engine.settle(taken=True)

    assert (item.arrays[0] == PICTURES[3]).all()
    results = ended(stream, engine)
    # The second is answered FAILED, or SUPERSEDED if the third was there before it was looked at.
    assert statuses(results)[2] in (FAILED, SUPERSEDED)
    assert {n: s for n, s in statuses(results).items() if n != 2} == {1: SUPERSEDED, 3: OK}


def test_a_newer_frame_that_is_stale_does_not_take_the_place(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    send(stream, 2, at=time.time() - 1.0, lifespan=0.5)

    nothing = engine.newest_now()

    assert nothing == ()
    assert statuses(ended(stream, engine)) == {1: OK, 2: STALE}


def test_what_is_newer_says_until_when_it_is_of_use(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    first = begin(stream, engine)
    asked = engine.begin_newest()
    send(stream, 2, lifespan=5.0)

    content = asked.result(30)

    assert content is not None
    assert content.deadline < time.monotonic() + 5.0 < first.deadline
    engine.settle(taken=True)
    assert statuses(ended(stream, engine)) == {1: SUPERSEDED, 2: OK}


@pytest.mark.parametrize("reason", ["DEADLINE_PASSED", "DEADLINE_UNREACHABLE"])
def test_a_frame_that_the_engine_finds_too_old_is_stale_and_its_stream_keeps_its_turn(
    camera: Callable[..., Camera], engine: ScriptedEngine, reason: str
) -> None:
    late = Failure(errors_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"), "too late")
    told = [late, zeros, zeros]
    stream = camera()
    stream.ready()
    engine.answers(lambda job: zeros(job) if told.pop(0) is zeros else late)
    turns, results = list[float](), list[int]()

    for number in range(3):
        send(stream, number)
        job = engine.begun.get(timeout=30)
        assert job.turn is not None
        turns.append(job.turn)
        results.append(stream.result().status)

    assert results == [STALE, OK, OK]
    assert turns[0] == turns[1] < turns[2]


def test_a_frame_that_fails_in_anothers_place_fails_as_itself(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    renewed(stream, engine, 2)

    engine.answers(lambda _: Failure(errors_pb2.ERROR_REASON_INTERNAL, "a fault"))

    assert statuses(stream.finish()) == {1: SUPERSEDED, 2: FAILED}


def test_who_asks_once_hears_at_once_whether_there_is_something_newer(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    nothing = engine.newest_now()
    send(stream, 2)
    send(stream, 3)
    assert stream.result().status == SUPERSEDED

    (item,) = engine.newest_now()
    engine.settle(taken=True)

    assert nothing == ()
    assert (item.arrays[0] == PICTURES[3]).all()
    assert statuses(ended(stream, engine)) == {1: SUPERSEDED, 3: OK}


# ---------------------------------------------------------------- pairs


def test_vectors_and_latent_action_are_of_one_frame_and_its_own_pair(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream, now = camera(latent_actions=True), time.time()
    stream.ready()
    for number, at in enumerate((0.0, INTERVAL)):
        send(stream, number, now + at)
        if number == 0:
            engine.answers(zeros)
            assert stream.result().status == OK
            engine.begun.get(timeout=30)
            engine.answers(None)
    engine.begun.get(timeout=30)
    for number, at in ((2, 1.0), (3, 1.0 + INTERVAL)):
        send(stream, number, now + at)
    assert stream.result().frame_id == 2

    one, pair = engine.newest()
    engine.settle(taken=True)
    results = {result.frame_id: result for result in ended(stream, engine)}

    assert (one.operation, pair.operation) == (EmbedImages("joint"), LatentActions(False, False))
    assert (one.arrays[0] == PICTURES[3]).all()
    assert [(a == b).all() for a, b in zip(pair.arrays, PICTURES[2:4], strict=True)] == [True] * 2
    assert statuses(list(results.values())) == {1: SUPERSEDED, 3: OK}
    assert (results[3].latent_action_status, results[3].earlier_frame_id) == (PAIRED, 2)
    assert results[3].latent_action.interval.ToMicroseconds() == pytest.approx(
        INTERVAL * 1e6, abs=2
    )


def test_a_frame_without_a_pair_does_not_take_the_place_of_one_that_has_it(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, now = camera(latent_actions=True), time.time()
    stream.ready()
    send(stream, 0, now)
    assert stream.result().status == OK
    engine.answers(None)
    engine.begun.get(timeout=30)
    send(stream, 1, now + INTERVAL)
    engine.begun.get(timeout=30)
    asked = engine.begin_newest()

    send(stream, 2, now + 1.0)
    send(stream, 3, now + 1.0 + INTERVAL)
    one, _ = items_of(asked.result(30))
    engine.settle(taken=True)

    assert (one.arrays[0] == PICTURES[3]).all()
    assert statuses(ended(stream, engine)) == {1: SUPERSEDED, 2: SUPERSEDED, 3: OK}


# ---------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_engine_takes_every_frame_gets_exactly_one_answer(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine, seed: int, depth: int
) -> None:
    draw = random.Random(seed)
    stream = camera(latent_actions=True, depth=depth)
    stream.ready()
    at = time.time()
    stream.send(frame(0, at))
    engine.begun.get(timeout=30)
    for number in range(1, 40):
        at += draw.choice((INTERVAL, INTERVAL / 2, 3.0))
        stream.send(frame(number, at, image=draw.choice((IMAGE, IMAGE, NO_IMAGE))))
        if draw.random() < 0.5:
            asked = engine.begin_newest()
            try:
                asked.result(0.05)
            except TimeoutError:
                asked.cancel()
            else:
                engine.settle(taken=draw.random() < 0.5)

    results = ended(stream, engine)

    assert sorted(statuses(results)) == list(range(40))
    assert statuses(results)[0] in (OK, SUPERSEDED)
    assert STALE not in statuses(results).values()
    until(lambda: front.front._calls.memory.used == 0)


def test_a_client_that_vanishes_leaves_no_frame_behind(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    send(stream, 2)
    engine.newest()
    send(stream, 3)

    stream.close()

    until(lambda: front.front._calls.memory.used == 0)
    assert front.front._calls.memory.used == 0


def test_the_pixels_of_what_is_outdone_are_given_back_at_once(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    renewed(stream, engine, 1 + 1)
    alone = front.front._calls.memory.used

    for number in (3, 4, 5):
        renewed(stream, engine, number)

    assert front.front._calls.memory.used == alone
    assert np.prod(PICTURES[0].shape) <= alone < 4 * np.prod(PICTURES[0].shape)
