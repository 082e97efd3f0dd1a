"""A live camera: the newest frame wins, and every frame gets exactly one answer.

Before a scripted engine, which holds a frame for as long as the test says.
"""

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from tests.bundles import INTERVAL
from tests.server.worker.asking import IMAGE, NO_IMAGE, options
from tests.server.worker.frames import FAILED, OK, STALE, SUPERSEDED, begin, frame, statuses
from tests.server.worker.messages import reason, seconds
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, until

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Priority


def test_a_stream_says_that_it_is_ready_and_answers_each_frame(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    ready = stream.ready()
    for number in (3, 7):
        stream.send(frame(number, time.time()))
        result = stream.result()
        assert (result.frame_id, result.status) == (number, OK)
        assert result.embedding.values.data
        assert result.embedding.space_id
        assert result.info.model == "full"
        assert result.age.ToNanoseconds() >= 0
        assert result.latent_action_status == stream_pb2.LATENT_ACTION_STATUS_UNSPECIFIED
    assert stream.finish() == []
    assert ready.info.model == "full"
    assert not ready.info.HasField("timings")  # nothing was computed
    assert abs(ready.worker_time.ToSeconds() - time.time()) < 60


def test_the_newest_frame_wins(camera: Callable[..., Camera], engine: ScriptedEngine) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    for number in (2, 3, 4):
        stream.send(frame(number))
    early = [stream.result(), stream.result()]

    engine.answers(zeros)
    rest = stream.finish()

    assert statuses(early) == {2: SUPERSEDED, 3: SUPERSEDED}
    assert statuses(rest) == {1: OK, 4: OK}


def test_superseded_frames_are_counted_and_cost_the_engine_nothing(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    for number in (2, 3, 4):
        stream.send(frame(number))
    engine.answers(zeros)

    results = stream.finish()

    superseded = Counter(statuses(results).values())[SUPERSEDED]
    told = {"model": "full", "status": "SUPERSEDED"}
    assert (front.metric("tectum_stream_frames_total", **told) or 0) == superseded
    assert engine.begun.qsize() == 3 - superseded


def test_a_frame_that_outlived_its_lifespan_on_arrival_is_stale(
    camera: Callable[..., Camera], front: Fronted, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    stream.send(frame(1, at=time.time() - 5, lifespan=1.0))
    result = stream.result()

    assert (result.frame_id, result.status) == (1, STALE)
    assert result.age.ToSeconds() >= 4
    assert not result.HasField("info")
    assert engine.begun.empty()
    assert front.metric("tectum_stream_frames_total", model="full", status="STALE") == 1


def test_a_frame_that_outlives_it_while_it_waits_is_stale(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream = camera()
    stream.ready()
    begin(stream, engine)
    stream.send(frame(2, lifespan=0.001))
    stream.send(frame(3, lifespan=0.001))
    assert stream.result().status == SUPERSEDED  # so the third waits now
    expired = time.monotonic() + 0.01
    until(lambda: time.monotonic() > expired)

    engine.answers(zeros)

    assert statuses(stream.finish()) == {1: OK, 3: STALE}


def test_a_deadline_passed_in_the_engine_is_a_stale_frame(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(lambda _: Failure(errors_pb2.ERROR_REASON_DEADLINE_PASSED, "too late"))
    stream = camera()
    stream.ready()
    stream.send(frame(1))

    assert stream.result().status == STALE


def test_a_stream_has_its_own_lifespan_and_frames_may_have_another(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera(lifespan=seconds(1))
    stream.ready()
    old = time.time() - 5
    default = frame(1, at=old)
    default.ClearField("lifespan")

    stream.send(default)
    first = stream.result()
    stream.send(frame(2, at=old + 0.1, lifespan=30))

    assert [first.status, stream.result().status] == [STALE, OK]


def test_a_camera_whose_clock_runs_ahead_makes_no_frame_younger(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    stream.send(frame(1, at=time.time() + 1000, lifespan=60))
    result = stream.result()

    assert (result.status, result.age.ToNanoseconds()) == (OK, 0)
    deadline = engine.begun.get(timeout=30).deadline
    assert deadline <= time.monotonic() + 60


def test_a_frames_work_is_control_work_with_the_frames_deadline(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream, bulk = camera(), camera(options=options(priority=3))
    stream.ready()
    bulk.ready()

    job = begin(stream, engine)
    assert job.priority is Priority.CONTROL
    assert job.deadline <= time.monotonic() + 60
    assert begin(bulk, engine).priority is Priority.BULK
    engine.answers(zeros)


def test_a_bad_frame_fails_alone_and_the_stream_goes_on(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream = camera()
    stream.ready()

    stream.send(frame(1, image=NO_IMAGE))
    bad = stream.result()
    stream.send(frame(2))

    assert bad.status == FAILED
    assert reason(bad.error.reason) == "IMAGE_UNREADABLE"
    assert bad.error.field == "frame.image.encoded"
    assert stream.result().status == OK


def test_a_refusal_of_the_engine_fails_the_frame_with_its_delay(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(lambda _: Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, "full", "", 0.5))
    stream = camera()
    stream.ready()
    stream.send(frame(1))
    failed = stream.result()
    engine.answers(zeros)
    stream.send(frame(2))

    assert (failed.status, reason(failed.error.reason)) == (FAILED, "QUEUE_FULL")
    assert failed.error.retry_delay.ToMilliseconds() == 500
    assert stream.result().status == OK


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_sent_every_frame_gets_exactly_one_answer(
    camera: Callable[..., Camera], engine: ScriptedEngine, seed: int
) -> None:
    draw = random.Random(seed)
    stream = camera(latent_actions=True)
    stream.ready()
    now, number, kinds, last = time.time(), 0, dict[int, str](), 0.0
    for _ in range(60):
        number += draw.randint(1, 3)
        kind = kinds[number] = draw.choice(["sound", "sound", "sound", "old", "bad", "untimed"])
        at = None if kind == "untimed" else now - (10 if kind == "old" else 0) + number * INTERVAL
        if at is not None:
            kinds[number], last = ("back in time" if at < last else kind), at
        image = NO_IMAGE if kind == "bad" else IMAGE
        stream.send(frame(number, at, lifespan=0.5 if kind == "old" else 60, image=image))
        if draw.random() < 0.3:
            engine.answers(draw.choice([None, zeros, zeros]))
    engine.answers(zeros)

    found = statuses(stream.finish())

    assert found.keys() == kinds.keys()
    allowed = {
        "sound": {OK, SUPERSEDED},
        "untimed": {OK, SUPERSEDED},
        "old": {STALE, SUPERSEDED},
        "bad": {FAILED, SUPERSEDED},
        "back in time": {FAILED},
    }
    assert all(found[number] in allowed[kind] for number, kind in kinds.items())
    assert found[number] != SUPERSEDED  # nothing came after the last
