"""Shared memory for frames: bounded, named for a moment, and harmless whatever is done to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.bundles import picture
from tests.server.worker.messages import reason

from tectum.v1 import stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front import sharing
from tectum_server.worker.front.sharing import SharedPlaces, Sharing

PIXELS = picture(1, 20, 30)
PLACE = PIXELS.nbytes
Opening = Callable[..., SharedPlaces]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where these tests' shared memory lies."""
    monkeypatch.setattr(sharing, "_FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def opened(folder: Path) -> Iterator[Opening]:
    """Open places; they are closed in the end."""
    shared, found = Sharing(1 << 20, 1000), list[SharedPlaces]()

    def open_places(place_bytes: int = PLACE) -> SharedPlaces:
        places = shared.open(place_bytes)
        assert places is not None
        found.append(places)
        return places

    yield open_places
    for places in found:
        if not places._closed:
            places.close()


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
    assert list(folder.iterdir()) == []
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


def test_there_is_only_so_much_and_it_comes_back(folder: Path) -> None:
    size = 4096 + 6 * PLACE
    shared = Sharing(2 * size, 1000)

    first, second, third = (shared.open(PLACE) for _ in range(3))
    assert first is not None
    assert second is not None
    first.close()
    again = shared.open(PLACE)

    assert third is None
    assert again is not None
    again.close()
    second.close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place_bytes", [0, 3001])
def test_places_are_as_large_as_a_picture_may_be(folder: Path, place_bytes: int) -> None:
    with pytest.raises(Failure) as caught:
        Sharing(1 << 20, 1000).open(place_bytes)

    assert caught.value.field == "share.place_bytes"
    assert "1 to 3000" in caught.value.message


def test_where_there_is_none_none_is_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off, on = Sharing(0, 1000), Sharing(1 << 20, 1000)
    offered = off.offered, on.offered
    monkeypatch.setattr(sharing, "_FOLDER", folder / "nowhere")

    assert offered == (False, True)
    assert off.open(PLACE) is None
    assert not on.offered


def test_where_the_system_has_no_room_none_is_given_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    assert Sharing(1 << 20, 1000).open(PLACE) is None
    assert list(folder.iterdir()) == []
