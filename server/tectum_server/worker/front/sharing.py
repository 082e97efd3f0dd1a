"""Shared memory for the frames of clients on this host: given by the worker, off by default.

A stream gets an object of its own, of a bounded size, under a name that nobody can guess and that
only this process's user may open. Pixels are read from its descriptor, never from a mapping: a
client that makes the object smaller costs itself a frame, and not this process its life.
"""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.wire import out_of_range

__all__ = ["SharedPicture", "SharedPlaces", "Sharing"]

_FOLDER = Path("/dev/shm")  # noqa: S108 - Linux's own for POSIX shared memory, which has no other
_PLACES = 6
"""One frame waits, one is in the engine's line, one is offered in its place, one is on its way; and
two whose answers are."""
_HEADER = 4096
"""Bytes before the first place: a page."""
_MARK = 32


class Sharing:
    """What all streams of a front may have.

    Args:
        capacity: bytes; 0: none.
        max_pixels: of one frame.
    """

    def __init__(self, capacity: int, max_pixels: int) -> None:
        self._capacity = capacity
        self._max_pixels = max_pixels
        self._used = 0

    @property
    def offered(self) -> bool:
        """Whether there is any, for any stream."""
        return self._capacity > 0 and _FOLDER.is_dir()

    def open(self, place_bytes: int) -> SharedPlaces | None:
        """Places for a stream's frames; None if there is no more room.

        Args:
            place_bytes: of each.

        Raises:
            Failure: FIELD_OUT_OF_RANGE.
        """
        most = 3 * self._max_pixels
        if not 0 < place_bytes <= most:
            raise out_of_range("share.place_bytes", f"1 to {most}, found {place_bytes}")
        size = _HEADER + _PLACES * place_bytes
        if not self.offered or self._used + size > self._capacity:
            return None
        try:
            places = SharedPlaces(self, place_bytes, size)
        except OSError:  # the system has no room, or lets nobody
            return None
        self._used += size
        return places

    def closed(self, size: int) -> None:
        """Hear that so many bytes are free again."""
        self._used -= size


class SharedPlaces:
    """One stream's.

    Args:
        sharing: what they are part of.
        place_bytes: of each place.
        size: of all, and what comes before.

    Raises:
        OSError: the system does not give them.
    """

    def __init__(self, sharing: Sharing, place_bytes: int, size: int) -> None:
        self._sharing = sharing
        self._place_bytes = place_bytes
        self._size = size
        self._lock = threading.Lock()
        self._hidden = self._closed = False
        self._mark = secrets.token_bytes(_MARK)
        self._name = f"tectum-{secrets.token_hex(16)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(_FOLDER / self._name, flags, 0o600)
        try:
            # Now, and all of it: later, there might be no room where it is written to.
            os.posix_fallocate(self._descriptor, 0, size)
            os.pwrite(self._descriptor, self._mark, 0)
        except OSError:
            self.hide()
            os.close(self._descriptor)
            raise

    def told(self) -> stream_pb2.SharedMemory:
        """As the client is told."""
        return stream_pb2.SharedMemory(
            name=f"/{self._name}",
            mark=self._mark,
            offset=_HEADER,
            place_bytes=self._place_bytes,
            places=_PLACES,
        )

    def hide(self) -> None:
        """Take its name away; who has it open keeps it."""
        if not self._hidden:
            self._hidden = True
            with suppress(FileNotFoundError):
                (_FOLDER / self._name).unlink()

    def close(self) -> None:
        """Let go of it; what is being read is waited for."""
        self.hide()
        with self._lock:
            self._closed = True
            os.close(self._descriptor)
        self._sharing.closed(self._size)

    def read(self, offset: int, into: NDArray[np.uint8]) -> None:
        """Fill an array.

        Raises:
            Failure: there is not as much any more.
        """
        with self._lock:  # a number of a descriptor that is closed may be another's by now
            read = 0 if self._closed else os.preadv(self._descriptor, [into.data], offset)
        if read != into.nbytes:
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                f"{into.nbytes} bytes of shared memory were to be read, {read} are there",
                "frame.shared",
            )

    def picture(self, sent: stream_pb2.SharedPixels) -> SharedPicture:
        """Where a frame's pixels lie; who says so has the memory open, and needs its name no more.

        Raises:
            Failure: nowhere in these places.
        """
        self.hide()
        if sent.place >= _PLACES:
            found = f"0 to {_PLACES - 1}, found {sent.place}"
            raise out_of_range("frame.shared.place", found)
        if not sent.height or not sent.width:
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                "height and width are at least 1",
                "frame.shared",
            )
        needed = sent.height * sent.width * 3
        if needed > self._place_bytes:
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                f"{sent.height}×{sent.width} RGB needs {needed} bytes, a place has "
                f"{self._place_bytes}",
                "frame.shared",
            )
        offset = _HEADER + sent.place * self._place_bytes
        return SharedPicture(self, offset, sent.height, sent.width)


@dataclass(frozen=True, slots=True)
class SharedPicture:
    """Pixels that lie in shared memory until they are read."""

    places: SharedPlaces
    offset: int
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        """What its pixels will take."""
        return self.height * self.width * 3

    def read(self) -> NDArray[np.uint8]:
        """A copy, uint8[H, W, 3].

        Raises:
            Failure: they are not there any more.
        """
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        self.places.read(self.offset, pixels)
        return pixels
