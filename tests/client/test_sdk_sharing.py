"""Frames in the worker's shared memory, as the SDK puts them there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tectum import Frame, sharing
from tectum.conversation import Conversation
from tectum.sending import sending
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
    opened = SharedPlaces.open(told, BYTES)
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
        {"offset": 2**40},
        {"places": 0},
        {"places": 65},
        {"place_bytes": BYTES - 1},
        {"place_bytes": 0, "places": 2**32 - 1},
    ],
    ids=str,
)
def test_what_is_not_what_the_worker_told_of_is_left_alone(
    told: stream_pb2.SharedMemory, changes: dict[str, object]
) -> None:
    for field, value in changes.items():
        setattr(told, field, value)

    before = len(list(Path("/proc/self/fd").iterdir()))

    assert SharedPlaces.open(told, BYTES) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_link_is_not_followed(told: stream_pb2.SharedMemory, tmp_path: Path) -> None:
    path = tmp_path / told.name[1:]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert SharedPlaces.open(told, BYTES) is None


def test_what_is_no_file_is_not_opened(told: stream_pb2.SharedMemory, tmp_path: Path) -> None:
    path = tmp_path / told.name[1:]
    path.unlink()
    os.mkfifo(path)
    before = len(list(Path("/proc/self/fd").iterdir()))

    assert SharedPlaces.open(told, BYTES) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_another_users_is_not_opened(
    told: stream_pb2.SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    assert SharedPlaces.open(told, BYTES) is None


@pytest.mark.parametrize("failing", ["raises", "is short"])
def test_where_the_memory_has_no_room_any_more_the_frame_is_sent(
    places: SharedPlaces, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> int:
        if failing == "raises":
            raise OSError(28, "No space left on device")
        return 5

    monkeypatch.setattr(os, "pwrite", full)
    refused = [places.put(number, RAW) for number in range(3)]
    monkeypatch.undo()

    assert refused == [None] * 3
    assert places.put(3, RAW) is not None
    assert places.put(4, RAW) is not None


# ---------------------------------------------------------------- of a stream


@pytest.fixture
def conversation(told: stream_pb2.SharedMemory) -> Conversation:
    """A stream that shares, accepted by a worker that gives memory."""
    found = Conversation("id", 2**20, sending=sending("shared"))
    ready = stream_pb2.StreamReady(shares_memory=True)
    found.hear(stream_pb2.StreamPerceptionResponse(ready=ready))
    return found


def heard(conversation: Conversation, told: stream_pb2.SharedMemory) -> None:
    """The worker tells of shared memory."""
    conversation.hear(stream_pb2.StreamPerceptionResponse(shared_memory=told))


def test_it_is_asked_for_with_the_first_frame_and_said_to_be_open(
    conversation: Conversation, told: stream_pb2.SharedMemory
) -> None:
    conversation.say(Frame(np.zeros((4, 4, 3), np.uint8)))
    asked, first = conversation.to_send(), conversation.to_send()
    heard(conversation, told)
    opened = conversation.to_send()

    assert asked is not None
    assert asked.share.place_bytes == BYTES
    assert first is not None
    assert first.frame.image.HasField("raw")
    assert opened is not None
    assert opened.WhichOneof("message") == "opened"
    assert conversation.to_send() is None
    conversation.close()


@pytest.mark.parametrize("before", ["unasked", "answered"])
def test_memory_that_was_not_asked_for_is_no_answer(
    conversation: Conversation, told: stream_pb2.SharedMemory, before: str
) -> None:
    if before == "answered":
        conversation.say(Frame(np.zeros((4, 4, 3), np.uint8)))
        conversation.to_send()
        heard(conversation, told)
    held = len(list(Path("/proc/self/fd").iterdir()))

    with pytest.raises(ValueError, match="not asked for"):
        heard(conversation, told)

    assert len(list(Path("/proc/self/fd").iterdir())) == held
    conversation.close()


def test_what_comes_after_the_end_is_let_go(
    conversation: Conversation, told: stream_pb2.SharedMemory
) -> None:
    conversation.say(Frame(np.zeros((4, 4, 3), np.uint8)))
    conversation.to_send()
    before = len(list(Path("/proc/self/fd").iterdir()))
    conversation.slot.close()  # by another thread, at that moment

    heard(conversation, told)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert conversation.to_send() is None
