"""Shared memory for frames: bounded, named for a moment, and harmless whatever is done to it."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.bundles import picture
from tests.server.worker.messages import reason

from tectum.v1 import stream_pb2
from tectum_server.worker import shared_names
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.sharing import SharedPlaces, Sharing

PIXELS = picture(1, 20, 30)
PLACES = 6
PLACE = PIXELS.nbytes
Opening = Callable[..., SharedPlaces]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where these tests' shared memory lies."""
    monkeypatch.setattr(shared_names, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def opened(folder: Path) -> Iterator[Opening]:
    """Open places; they are closed in the end."""
    found = list[SharedPlaces]()

    def open_places(place_bytes: int = PLACE) -> SharedPlaces:
        found.append(SharedPlaces.make(shared_names.fresh("tectum-x"), place_bytes, PLACES))
        return found[-1]

    yield open_places
    for places in found:
        if not places._closed:
            places.close()


def left(folder: Path) -> list[str]:
    """The names that are there."""
    return sorted(path.name for path in folder.iterdir())


async def given_back(shared: Sharing) -> None:
    """Wait until all that is to be closed is."""
    while shared._used:
        await asyncio.sleep(0.001)


def write(places: SharedPlaces, folder: Path, place: int, data: bytes) -> None:
    """Write to a place, as a client does."""
    told = places.told()
    with (folder / told.name[1:]).open("r+b") as file:
        file.seek(told.offset + place * told.place_bytes)
        file.write(data)


def at(place: int, height: int = 20, width: int = 30) -> stream_pb2.SharedPixels:
    """Where a frame says that its pixels lie."""
    return stream_pb2.SharedPixels(place=place, height=height, width=width)


def test_what_was_written_to_a_place_is_read_and_is_a_copy(opened: Opening, folder: Path) -> None:
    places = opened()
    write(places, folder, 3, PIXELS.tobytes())

    found = places.picture(at(3))
    copy = found.read()

    assert found.nbytes == PLACE
    np.testing.assert_array_equal(copy, PIXELS)
    copy[:] = 0
    np.testing.assert_array_equal(found.read(), PIXELS)


def test_it_begins_with_its_mark_and_nobody_else_may_open_it(opened: Opening, folder: Path) -> None:
    told = opened().told()
    path = folder / told.name[1:]

    assert path.read_bytes().startswith(told.mark)
    assert len(told.mark) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == told.offset + told.places * told.place_bytes
    assert path.stat().st_blocks * 512 >= path.stat().st_size  # none of it is yet to be found


def test_its_name_is_gone_once_it_is_used_or_closed(opened: Opening, folder: Path) -> None:
    used, unused = opened(), opened()
    names = [places.told().name for places in (used, unused)]

    used.picture(at(0))
    one = {path.name for path in folder.iterdir()}
    unused.close()

    assert len(set(names)) == 2
    assert one == {names[1][1:]}
    assert (used.used, list(folder.iterdir())) == (True, [])
    assert used.picture(at(0)).read().shape == (20, 30, 3)  # who has it open keeps it


@pytest.mark.parametrize(
    ("sent", "why", "field"),
    [
        (at(6), "FIELD_OUT_OF_RANGE", "frame.shared.place"),
        (at(0, 0, 30), "SHAPE_MISMATCH", "frame.shared"),
        (at(0, 20, 0), "SHAPE_MISMATCH", "frame.shared"),
        (at(0, 20, 31), "SHAPE_MISMATCH", "frame.shared"),
        (at(5, 2**32 - 1, 2**32 - 1), "SHAPE_MISMATCH", "frame.shared"),
    ],
)
def test_a_frame_that_lies_outside_its_place_is_refused(
    opened: Opening, sent: stream_pb2.SharedPixels, why: str, field: str
) -> None:
    with pytest.raises(Failure) as caught:
        opened().picture(sent)

    assert (reason(caught.value.reason), caught.value.field) == (why, field)


def test_memory_that_was_made_smaller_or_closed_costs_a_frame_and_no_more(
    opened: Opening, folder: Path
) -> None:
    cut, closed = opened(), opened()
    os.truncate(folder / cut.told().name[1:], 5000)
    pictures = cut.picture(at(2)), closed.picture(at(2))
    closed.close()

    for found in pictures:
        with pytest.raises(Failure) as caught:
            found.read()
        assert reason(caught.value.reason) == "SHAPE_MISMATCH"


async def test_there_is_only_so_much_and_it_comes_back(folder: Path) -> None:
    size = 4096 + 6 * PLACE
    shared = Sharing(2 * size, 1000, "tectum-x")

    first, second, third = [await shared.open(PLACE) for _ in range(3)]
    assert first is not None
    assert second is not None
    shared.take_back(first)
    while (again := await shared.open(PLACE)) is None:
        await asyncio.sleep(0.001)

    assert third is None
    assert (first.size, second.size, again.size) == (size, size, size)
    for places in (again, second):
        shared.take_back(places)
    await given_back(shared)
    assert left(folder) == []
    shared.close()


async def test_who_asks_for_larger_places_than_a_picture_may_be_is_given_none(
    folder: Path,
) -> None:
    shared = Sharing(1 << 20, 1000, "tectum-x")

    assert await shared.open(3001) is None
    assert await shared.open(3000) is not None
    shared.close()


async def test_where_there_is_none_none_is_offered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off, on = Sharing(0, 1000, "x"), Sharing(1 << 20, 1000, "x")
    offered = off.offered, on.offered
    monkeypatch.setattr(shared_names, "FOLDER", folder / "nowhere")

    assert offered == (False, True)
    assert await off.open(PLACE) is None
    assert not on.offered


async def test_where_the_system_has_no_room_none_is_given_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    shared = Sharing(1 << 20, 1000, "tectum-x")

    assert await shared.open(PLACE) is None
    assert shared._used == 0
    assert left(folder) == []
    shared.close()


@pytest.mark.parametrize("room", [True, False])
async def test_who_goes_while_it_is_being_made_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    inner, going = os.posix_fallocate, threading.Event()

    def slow(*given: int) -> None:
        going.wait(30)
        if not room:
            raise OSError(28, "No space left on device")
        inner(*given)

    monkeypatch.setattr(os, "posix_fallocate", slow)
    shared = Sharing(1 << 20, 1000, "tectum-x")
    opening = asyncio.ensure_future(shared.open(PLACE))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)

    going.set()
    await given_back(shared)

    assert left(folder) == []
    shared.close()


async def test_it_is_empty_for_whoever_still_has_it_open(folder: Path) -> None:
    shared = Sharing(1 << 20, 1000, "tectum-x")
    places = await shared.open(PLACE)
    assert places is not None
    with (folder / places.told().name[1:]).open("rb") as held:
        shared.take_back(places)
        await given_back(shared)

        assert os.fstat(held.fileno()).st_size == 0
    shared.close()


def test_what_a_front_has_left_is_swept_by_how_its_names_begin(folder: Path) -> None:
    mine, other = shared_names.beginning(), shared_names.beginning()
    for begins in (mine, mine, other):
        (folder / shared_names.fresh(begins)).touch()

    shared_names.sweep(mine)

    assert [path.name.startswith(other) for path in folder.iterdir()] == [True]
    assert re.fullmatch("tectum-[0-9a-f]{32}", shared_names.fresh(mine))
