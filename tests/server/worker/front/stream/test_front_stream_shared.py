"""Frames that lie in shared memory: the same answers, and nothing of them in messages."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.bundles import INTERVAL, picture
from tests.server.worker.frames import FAILED, OK, PAIRED, SUPERSEDED, frame
from tests.server.worker.messages import reason
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, until

from tectum.sharing import SharedPlaces
from tectum.v1 import image_pb2, stream_pb2
from tectum_server.worker.front import images, sharing
from tectum_server.worker.front.stream import incoming

FIRST, SECOND, THIRD = (picture(seed, 40, 50) for seed in (1, 2, 3))
SHM = Path("/dev/shm")


class Robot:
    """A stream whose frames lie in shared memory, written by hand."""

    def __init__(self, front: Fronted, **setup: int) -> None:
        asked = stream_pb2.StreamSetup(**{"embed": True, **setup})  # type: ignore[arg-type]
        self.camera = Camera(front.client, asked)
        self.offered = self.camera.ready().shares_memory
        self.told = stream_pb2.SharedMemory()
        self.places: SharedPlaces | None = None

    def share(self, place_bytes: int = FIRST.nbytes) -> None:
        """Ask for places."""
        asked = stream_pb2.SharedMemoryRequest(place_bytes=place_bytes)
        self.camera.say(stream_pb2.StreamPerceptionRequest(share=asked))
        response: stream_pb2.StreamPerceptionResponse = next(self.camera.call)
        self.told = response.shared_memory
        self.places = SharedPlaces.open(self.told, place_bytes)

    def show(self, number: int, pixels: NDArray[np.uint8], at: float | None = None) -> None:
        """Send a frame that lies there."""
        assert self.places is not None
        height, width, _ = pixels.shape
        raw = image_pb2.RawImage(height=height, width=width, data=pixels.tobytes())
        shared = self.places.put(number, raw)
        assert shared is not None
        sent = frame(number, at, image=None)
        sent.shared.CopyFrom(shared)
        self.camera.send(sent)

    def result(self) -> stream_pb2.FrameResult:
        """The next frame's answer, which frees its place."""
        result = self.camera.result()
        if self.places is not None:
            self.places.free(result.frame_id)
        return result

    def close(self) -> None:
        """Go away."""
        self.camera.close()
        if self.places is not None:
            self.places.close()


@pytest.fixture
def robots(fronted: Callable[..., Fronted]) -> Iterator[Callable[..., Robot]]:
    """Streams of a front that gives shared memory."""
    front, opened = fronted(shared_memory_bytes=1 << 20), list[Robot]()

    def start(**setup: int) -> Robot:
        opened.append(Robot(front, **setup))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def robot(robots: Callable[..., Robot]) -> Robot:
    """One, with places."""
    one = robots()
    one.share()
    return one


def test_what_is_computed_is_what_lies_there(robot: Robot, engine: ScriptedEngine) -> None:
    engine.answers(zeros)

    for number, pixels in enumerate((FIRST, SECOND, THIRD) * 4):
        robot.show(number, pixels)
        result = robot.result()
        assert (result.frame_id, result.status) == (number, OK)
        (item,) = engine.begun.get(timeout=30).items
        np.testing.assert_array_equal(item.arrays[0], pixels)


@pytest.mark.parametrize(("depth", "places"), [(1, 6), (4, 9)])
def test_there_are_places_for_as_many_frames_as_may_wait(
    robots: Callable[..., Robot], depth: int, places: int
) -> None:
    one = robots(depth=depth)

    one.share()

    assert one.told.places == places


def test_smaller_frames_lie_there_too(robot: Robot, engine: ScriptedEngine) -> None:
    engine.answers(zeros)
    small = picture(4, 7, 9)

    robot.show(1, small)

    assert robot.result().status == OK
    np.testing.assert_array_equal(engine.begun.get(timeout=30).items[0].arrays[0], small)


def test_a_frame_that_a_newer_one_replaces_is_never_read(
    robot: Robot, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, read = sharing.SharedPlaces.read, list[int]()

    def noted(self: sharing.SharedPlaces, offset: int, into: NDArray[np.uint8]) -> None:
        read.append((offset - 4096) // FIRST.nbytes)
        inner(self, offset, into)

    monkeypatch.setattr(sharing.SharedPlaces, "read", noted)
    robot.show(1, FIRST)
    first = engine.begun.get(timeout=30)
    robot.show(2, SECOND)
    robot.show(3, THIRD)
    outdone = robot.result()
    engine.answers(zeros)

    rest = [robot.result(), robot.result()]

    assert (outdone.frame_id, outdone.status) == (2, SUPERSEDED)
    assert [(one.frame_id, one.status) for one in rest] == [(1, OK), (3, OK)]
    np.testing.assert_array_equal(first.items[0].arrays[0], FIRST)
    np.testing.assert_array_equal(engine.begun.get(timeout=30).items[0].arrays[0], THIRD)
    assert read == [0, 2]


def test_a_frame_is_paired_with_what_an_earlier_one_showed_although_its_place_is_used_again(
    robots: Callable[..., Robot], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    robot, began = robots(latent_actions=True, embed=False), time.time()
    robot.share()
    robot.show(1, FIRST, began)
    robot.result()
    assert robot.places is not None
    robot.places._free.rotate(1)  # the place of the first is the next one's

    robot.show(2, SECOND, began + INTERVAL)
    result = robot.result()

    assert (result.latent_action_status, result.earlier_frame_id) == (PAIRED, 1)
    earlier, later = engine.begun.get(timeout=30).items[0].arrays
    np.testing.assert_array_equal(earlier, FIRST)
    np.testing.assert_array_equal(later, SECOND)


def test_a_worker_that_gives_none_does_not_offer_it_and_says_so_if_asked(front: Fronted) -> None:
    robot = Robot(front)
    offered = robot.offered

    robot.share()

    assert not offered
    assert robot.told == stream_pb2.SharedMemory()
    assert robot.places is None
    robot.close()


def test_streams_have_only_so_much_together_and_it_comes_back(
    robots: Callable[..., Robot], engine: ScriptedEngine
) -> None:
    first, second = robots(), robots()
    first.share(100_000)
    second.share(100_000)
    first.close()

    def left() -> bool:
        asked = robots()
        asked.share(100_000)
        if asked.places is None:
            asked.close()
        return asked.places is not None

    assert first.offered
    assert second.places is None
    until(left)
    assert not (SHM / first.told.name[1:]).exists()


@pytest.mark.parametrize("beside", [True, False])
def test_a_frame_that_lies_nowhere_or_in_two_places_fails_alone(
    robots: Callable[..., Robot], engine: ScriptedEngine, beside: bool
) -> None:
    engine.answers(zeros)
    robot = robots()
    if beside:
        robot.share()
    wrong = frame(1) if beside else frame(1, image=None)
    wrong.shared.CopyFrom(stream_pb2.SharedPixels(place=0, height=2, width=2))

    robot.camera.send(wrong)
    robot.camera.send(frame(2))
    failed, fine = robot.result(), robot.result()

    assert (failed.status, failed.error.field) == (FAILED, "frame.shared")
    assert reason(failed.error.reason) == "FIELD_OUT_OF_RANGE"
    assert fine.status == OK


def test_memory_that_is_made_smaller_costs_frames_and_not_the_worker(
    robot: Robot, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    robot.show(1, FIRST)
    robot.result()
    assert robot.places is not None
    assert robot.places._descriptor is not None
    os.ftruncate(robot.places._descriptor, 0)

    robot.camera.send(
        stream_pb2.StreamFrame(
            frame_id=2, shared=stream_pb2.SharedPixels(place=1, height=40, width=50)
        )
    )
    robot.camera.send(frame(3))

    assert [robot.result().status, robot.result().status] == [FAILED, OK]


@pytest.mark.parametrize("again", [True, False])
def test_a_stream_that_asks_once_more_or_for_nothing_ends(
    robots: Callable[..., Robot], again: bool
) -> None:
    robot = robots()
    if again:
        robot.share()
    asked = stream_pb2.SharedMemoryRequest(place_bytes=FIRST.nbytes if again else 0)

    robot.camera.say(stream_pb2.StreamPerceptionRequest(share=asked))
    told = robot.camera.failed()

    assert told.reason == "FIELD_OUT_OF_RANGE"
    assert told.fields == (("share",) if again else ("share.place_bytes",))


def test_places_that_are_too_large_are_not_given_and_the_stream_goes_on(
    robot: Robot, robots: Callable[..., Robot], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    other = robots()

    other.share(2**40)
    other.camera.send(frame(1))

    assert other.places is None
    assert other.result().status == OK


def test_what_its_client_does_not_open_is_taken_back(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "_NAMED_SECONDS", 0.1)
    engine.answers(zeros)
    front = fronted(shared_memory_bytes=4096 + 6 * FIRST.nbytes)
    elsewhere, here = Robot(front), list[Robot]()
    elsewhere.share()
    assert elsewhere.places is not None
    elsewhere.places.close()  # as if it were another host's

    def given() -> bool:
        here.append(Robot(front))
        here[-1].share()
        if here[-1].places is None:
            here.pop().close()
        return bool(here)

    until(given)
    lost = frame(1, image=None)
    lost.shared.CopyFrom(stream_pb2.SharedPixels(place=0, height=2, width=2))
    elsewhere.camera.send(lost)
    elsewhere.camera.send(frame(2))

    assert [elsewhere.camera.result().status for _ in range(2)] == [FAILED, OK]
    for robot in (elsewhere, *here):
        robot.close()


def test_what_its_client_says_is_open_is_left_to_it(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "_NAMED_SECONDS", 0.1)
    engine.answers(zeros)
    robot = Robot(fronted(shared_memory_bytes=1 << 20))
    robot.share()
    robot.camera.say(stream_pb2.StreamPerceptionRequest(opened=stream_pb2.SharedMemoryOpened()))
    until(lambda: not (SHM / robot.told.name[1:]).exists())
    time.sleep(0.3)  # three times as long as it would have waited

    robot.show(1, FIRST)

    assert robot.result().status == OK
    robot.close()


def test_a_client_that_goes_while_its_frame_is_read_leaves_no_memory_taken(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, reading, going = sharing.SharedPicture.read, threading.Event(), threading.Event()

    def slow(self: sharing.SharedPicture) -> NDArray[np.uint8]:
        reading.set()
        going.wait(30)
        return inner(self)

    monkeypatch.setattr(images, "_AT_ONCE", 0)
    monkeypatch.setattr(sharing.SharedPicture, "read", slow)
    front = fronted(shared_memory_bytes=1 << 20)
    robot = Robot(front, latent_actions=True)
    robot.share()
    robot.show(1, FIRST, time.time())
    assert reading.wait(30)

    robot.close()
    until(lambda: front.front._calls._streams == 0)
    going.set()

    until(lambda: front.front._calls.memory.used == 0)
    assert front.front._calls.memory.used == 0
