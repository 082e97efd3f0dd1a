"""The frames of a stream that wait: the newest, oldest first, and what outdoes what."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum.v1 import image_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.memory import Memory
from tectum_server.worker.front.stream.frames import Frame
from tectum_server.worker.front.stream.newest import Newest
from tectum_server.worker.front.stream.stream_setup import read_depth


def shown(number: int) -> Frame:
    """A frame."""
    memory = Memory(2**20).share()
    return Frame(number, image_pb2.Image(), 0.0, timed=False, expires=0.0, memory=memory)


def ids(frames: list[Frame]) -> list[int]:
    return [frame.frame_id for frame in frames]


async def test_frames_that_wait_are_taken_in_order() -> None:
    newest = Newest(3)

    outdone = [newest.put(shown(number)) for number in range(5)]
    newest.end()
    taken = [await newest.take() for _ in range(4)]

    assert ids([one for one in outdone if one is not None]) == [0, 1]
    assert ids([one for one in taken if one is not None]) == [2, 3, 4]
    assert taken[-1] is None


async def test_one_that_was_taken_is_outdone_once_as_many_newer_ones_wait_as_may() -> None:
    newest, found = Newest(2), list[int | None]()

    for number in (1, 2, 3):
        newest.put(shown(number))
        newer = await newest.newer(0, patient=False)
        found.append(None if newer is None else newer.frame_id)

    assert found == [None, 1, 2]


async def test_one_that_is_of_no_use_is_outdone_by_any() -> None:
    newest = Newest(4)
    nothing = await newest.newer(0, patient=False, useless=lambda: True)
    newest.put(shown(1))

    newer = await newest.newer(0, patient=False, useless=lambda: True)

    assert nothing is None
    assert newer is not None


async def test_who_waits_for_what_is_newer_hears_of_it_when_there_is_enough() -> None:
    newest = Newest(2)
    newer = asyncio.ensure_future(newest.newer(0, patient=True))
    newest.put(shown(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    too_few = newer.done()

    newest.put(shown(2))

    assert not too_few
    found = await asyncio.wait_for(newer, 5)
    assert found is not None
    assert found.frame_id == 1


def test_what_comes_to_nothing_waits_again_before_the_others_if_there_is_room() -> None:
    newest = Newest(2)
    newest.put(shown(2))

    back = newest.put_back(shown(1))
    too_many = newest.put_back(shown(0))

    assert (back, too_many) == (True, False)
    assert newest.oldest is not None
    assert newest.oldest.frame_id == 1


@given(st.integers(1, 16), st.lists(st.sampled_from(["put", "take", "renew", "back"]), max_size=80))
def test_whatever_comes_the_newest_wait_in_order_and_each_frame_has_one_fate(
    depth: int, steps: list[str]
) -> None:
    async def played() -> None:
        newest, number, looked_at = Newest(depth), 0, -1
        placed: Frame | None = None
        over = list[Frame]()
        for step in steps:
            if step == "put":
                if (outdone := newest.put(shown(number))) is not None:
                    over.append(outdone)
                number += 1
            elif step == "take" and newest.oldest is not None:
                over += [] if placed is None else [placed]  # answered
                placed = await newest.take()
            elif step == "back" and placed is not None:
                looked_at = -1
                if not newest.put_back(placed):
                    over.append(placed)
                placed = None
            elif step == "renew" and placed is not None:
                looked_at = max(looked_at, placed.frame_id)
                while (newer := await newest.newer(looked_at, patient=False)) is not None:
                    over.append(placed)
                    placed, looked_at = newer, newer.frame_id
                assert placed.frame_id >= number - depth  # it is one of the newest
        waiting = ids(list(newest._frames))
        held = [] if placed is None else [placed.frame_id]
        assert waiting == sorted(waiting)
        assert len(waiting) <= depth
        assert sorted([*ids(over), *held, *waiting]) == list(range(number))
        assert not waiting or waiting[-1] == number - 1 or placed is not None

    asyncio.run(played())


@pytest.mark.parametrize(("asked", "depth"), [(0, 1), (1, 1), (16, 16)])
def test_one_frame_waits_unless_a_setup_says_otherwise(asked: int, depth: int) -> None:
    assert read_depth(stream_pb2.StreamSetup(depth=asked)) == depth


def test_a_depth_that_is_not_allowed_is_named_with_what_is() -> None:
    with pytest.raises(Failure, match="1 to 16, found 17") as caught:
        read_depth(stream_pb2.StreamSetup(depth=17))

    assert caught.value.field == "setup.depth"
