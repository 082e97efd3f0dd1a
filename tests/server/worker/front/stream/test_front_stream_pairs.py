"""Latent actions of a live camera: which earlier frame each is paired with, if any."""

import time
from collections.abc import Callable

import pytest
from tests.bundles import INTERVAL, picture
from tests.server.worker.asking import IMAGE, NO_IMAGE
from tests.server.worker.frames import FAILED, OK, PAIRED, SUPERSEDED, UNPAIRED, frame
from tests.server.worker.messages import raw, seconds
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera

from tectum.v1 import model_pb2, stream_pb2
from tectum_server.worker.front.methods.latents import Interval


def paired(
    stream: Camera, number: int, at: float | None, image: object = IMAGE
) -> stream_pb2.FrameResult:
    stream.send(frame(number, at, image=image))
    return stream.result()


def test_a_frame_is_paired_with_the_one_nearest_an_interval_earlier(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, now = camera(embed=False, latent_actions=True), time.time()
    stream.ready()

    results = [
        paired(stream, number, now + at)
        for number, at in ((1, 0.0), (2, 0.02), (3, 0.049), (4, 0.068), (5, 0.2))
    ]

    told = [(r.latent_action_status, r.earlier_frame_id) for r in results]
    assert told == [(UNPAIRED, 0), (UNPAIRED, 0), (PAIRED, 1), (PAIRED, 2), (UNPAIRED, 0)]
    intervals = [r.latent_action.interval.ToMicroseconds() for r in results[2:4]]
    assert intervals == pytest.approx([49_000, 48_000], abs=2)
    assert all(r.status == OK for r in results)
    assert not results[0].HasField("latent_action")
    assert not any(r.HasField("embedding") for r in results)
    assert results[2].latent_action.latent.space_id != ""


def test_the_pair_that_is_computed_is_the_pair_that_is_named(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, now = camera(embed=False, latent_actions=True), time.time()
    stream.ready()
    first, second, third = (picture(seed, 8, 8) for seed in (1, 2, 3))

    for number, (at, image) in enumerate(((0.0, first), (0.03, second), (0.05, third))):
        paired(stream, number, now + at, raw(image))

    job = engine.begun.get(timeout=30)
    earlier, later = job.items[0].arrays
    assert (earlier == first).all()
    assert (later == third).all()
    assert engine.begun.empty()


def test_frames_without_a_time_have_no_interval(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, now = camera(latent_actions=True), time.time()
    stream.ready()

    results = [paired(stream, 1, now), paired(stream, 2, None), paired(stream, 3, now + INTERVAL)]

    assert [r.latent_action_status for r in results] == [UNPAIRED, UNPAIRED, PAIRED]
    assert results[2].earlier_frame_id == 1
    assert all(r.HasField("embedding") for r in results)


def test_a_bad_frame_does_not_spoil_the_one_that_would_pair_with_it(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    stream, now = camera(latent_actions=True), time.time()
    stream.ready()

    bad = paired(stream, 1, now, NO_IMAGE)
    good = paired(stream, 2, now + INTERVAL)

    assert (bad.status, good.status) == (FAILED, OK)
    assert good.latent_action_status == UNPAIRED
    assert good.HasField("embedding")


def test_a_superseded_frame_can_still_be_an_earlier_one(
    camera: Callable[..., Camera], engine: ScriptedEngine
) -> None:
    stream, now = camera(latent_actions=True), time.time()
    stream.ready()
    stream.send(frame(1, now))
    engine.begun.get(timeout=30)
    stream.send(frame(2, now + 1.0))
    stream.send(frame(3, now + 1.0 + INTERVAL))
    assert stream.result().status == SUPERSEDED

    engine.answers(zeros)

    results = {result.frame_id: result for result in stream.finish()}
    assert (results[3].latent_action_status, results[3].earlier_frame_id) == (PAIRED, 2)


@pytest.mark.parametrize(
    ("gap", "holds"), [(0.05, True), (0.12, True), (0.13, False), (0.0, False), (-0.01, False)]
)
def test_a_wide_tolerance_reaches_neither_back_in_time_nor_to_the_frame_itself(
    gap: float, holds: bool
) -> None:
    spec = model_pb2.LatentActionInput(interval=seconds(0.05), tolerance=seconds(0.07))

    assert Interval(spec).holds(gap) is holds


@pytest.mark.parametrize("gap", [0.05, 0.075, 0.0625, 0.0500000001])
def test_a_pair_at_the_tolerance_holds_whatever_the_time_of_day(gap: float) -> None:
    interval = Interval(
        model_pb2.LatentActionInput(interval=seconds(0.0625), tolerance=seconds(0.0125))
    )
    clock = [1_795_000_000 + moment / 7 for moment in range(1000)]  # steps of 2.4e-7 s

    assert all(interval.holds((at + gap) - at) for at in clock)
    assert not any(interval.holds((at + 0.0751) - at) for at in clock)
