"""Frames in the worker's shared memory, as the SDK puts them there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tectum import sharing
from tectum.sharing import SharedPlaces
from tectum.v1 import image_pb2, stream_pb2

OFFSET, BYTES, PLACES = 100, 48, 2
RAW = image_pb2.RawImage(height=4, width=4, data=bytes(range(48)))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stream_pb2.SharedMemory:
    """What a worker tells of memory that is there."""
    monkeypatch.setattr(sharing, "_FOLDER", tmp_path)
    name, mark = f"tectum-{secrets.token_hex(16)}", secrets.token_bytes(32)
    (tmp_path / name).write_bytes(mark.ljust(OFFSET + PLACES * BYTES, b"\0"))
    return stream_pb2.SharedMemory(
        name=f"/{name}", mark=mark, offset=OFFSET, place_bytes=BYTES, places=PLACES
    )


@pytest.fixture
def places(told: stream_pb2.SharedMemory) -> Iterator[SharedPlaces]:
    """It, opened."""
    opened = SharedPlaces.open(told)
    assert opened is not None
    yield opened
    opened.close()


def test_pixels_lie_where_the_worker_is_told(
    places: SharedPlaces, told: stream_pb2.SharedMemory, tmp_path: Path
) -> None:
    shared = [places.put(7, RAW), places.put(8, RAW)]

    data = (tmp_path / told.name[1:]).read_bytes()
    assert [one.place for one in shared if one is not None] == [0, 1]
    assert data[OFFSET:] == RAW.data * 2
    assert shared[0] is not None
    assert (shared[0].height, shared[0].width) == (4, 4)


def test_a_place_is_free_again_once_its_frame_is_answered(places: SharedPlaces) -> None:
    taken = [places.put(1, RAW), places.put(2, RAW), places.put(3, RAW)]
    places.free(2)
    places.free(99)  # which had none
    again = places.put(4, RAW)

    assert taken[2] is None
    assert again is not None
    assert taken[1] is not None
    assert again.place == taken[1].place
    assert places.put(5, RAW) is None


def test_what_is_too_large_takes_no_place(places: SharedPlaces) -> None:
    large = image_pb2.RawImage(height=4, width=5, data=bytes(60))

    assert places.put(1, large) is None
    assert places.put(2, RAW) is not None
    assert places.put(3, RAW) is not None


def test_what_is_let_go_takes_nothing(places: SharedPlaces) -> None:
    places.close()
    places.close()

    assert places.put(1, RAW) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "/tectum-0123456789abcdef0123456789abcdef"},
        {"name": "/../etc/passwd"},
        {"name": "/tectum-0123456789abcdef0123456789abcdef/../../secret"},
        {"mark": b"m" * 32},
        {"mark": b""},
        {"places": PLACES + 1},
        {"offset": OFFSET + 1},
    ],
    ids=str,
)
def test_what_is_not_what_the_worker_told_of_is_left_alone(
    told: stream_pb2.SharedMemory, changes: dict[str, object]
) -> None:
    told.MergeFrom(stream_pb2.SharedMemory(**changes))  # type: ignore[arg-type]
    for field, value in changes.items():
        setattr(told, field, value)

    before = len(list(Path("/proc/self/fd").iterdir()))

    assert SharedPlaces.open(told) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_link_is_not_followed(told: stream_pb2.SharedMemory, tmp_path: Path) -> None:
    path = tmp_path / told.name[1:]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert SharedPlaces.open(told) is None


def test_where_the_memory_has_no_room_any_more_the_frame_is_sent(
    places: SharedPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)

    assert places.put(1, RAW) is None
    monkeypatch.undo()
    assert places.put(1, RAW) is not None
    np.testing.assert_equal(len(places._free), 1)
