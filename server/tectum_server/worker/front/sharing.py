"""Shared memory for the frames of clients on this host: given by the worker, off by default.

A stream gets an object of its own, of a bounded size, under a name that nobody can guess and that
only this process's user may open. Pixels are read from its descriptor, never from a mapping: a
client that makes the object smaller costs itself a frame, and not this process its life.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker import shared_names
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.messages.wire import out_of_range

__all__ = ["SharedPicture", "SharedPlaces", "Sharing"]

_PLACES = 5
"""Beside those for frames that wait: one frame is in the engine's line, one is offered in its
place, one is on its way; and two whose answers are."""
_HEADER = 4096
"""Bytes before the first place: a page."""
_MARK = 32


class Sharing:
    """What all streams of a front may have.

    Args:
        capacity: bytes; 0: none.
        max_pixels: of one frame.
        begins: how all names begin.
    """

    def __init__(self, capacity: int, max_pixels: int, begins: str) -> None:
        self._capacity = capacity
        self._max_pixels = max_pixels
        self._begins = begins
        self._used = 0
        # The system takes its time to find memory, and to have it back.
        self._thread = ThreadPoolExecutor(1, "share")

    @property
    def offered(self) -> bool:
        """Whether there is any, for any stream."""
        return self._capacity > 0 and shared_names.FOLDER.is_dir()

    async def open(self, place_bytes: int, waiting: int = 1) -> SharedPlaces | None:
        """Places for a stream's frames; None if there is no more room, or none so large.

        Args:
            place_bytes: of each, at least 1.
            waiting: how many of its frames may wait.
        """
        places = _PLACES + waiting
        size = _HEADER + places * place_bytes
        if not self.offered or place_bytes > 3 * self._max_pixels:
            return None
        if self._used + size > self._capacity:
            return None
        self._used += size
        making = asyncio.get_running_loop().run_in_executor(
            self._thread, SharedPlaces.make, shared_names.fresh(self._begins), place_bytes, places
        )
        try:
            return await asyncio.shield(making)
        except OSError:  # the system has no room, or lets nobody
            self._used -= size
            return None
        except asyncio.CancelledError:
            making.add_done_callback(partial(self._unwanted, size))
            raise

    def take_back(self, places: SharedPlaces) -> None:
        """Have a stream's places again; what is being read of them is waited for, elsewhere."""
        places.hide()
        try:
            closing = asyncio.get_running_loop().run_in_executor(self._thread, places.close)
        except RuntimeError:  # the front has ended
            places.close()
        else:
            closing.add_done_callback(lambda _: self._free(places.size))

    def close(self) -> None:
        """Give no more; what is to be closed is closed."""
        self._thread.shutdown()

    def _unwanted(self, size: int, made: asyncio.Future[SharedPlaces]) -> None:
        """Take back what was made, or could not be, for a stream that has ended meanwhile."""
        if made.cancelled() or made.exception() is not None:
            self._free(size)
        else:
            self.take_back(made.result())

    def _free(self, size: int) -> None:
        self._used -= size


class SharedPlaces:
    """One stream's.

    Args:
        name: of the object.
        descriptor: by which it is open.
        place_bytes: of each place.
        places: how many there are.
        mark: what it begins with.
    """

    def __init__(
        self, name: str, descriptor: int, place_bytes: int, places: int, mark: bytes
    ) -> None:
        self._name = name
        self._descriptor = descriptor
        self._place_bytes = place_bytes
        self._count = places
        self._mark = mark
        self._lock = threading.Lock()
        self._hidden = self._closed = False
        self.used = False
        """Whether its client has it open."""

    @classmethod
    def make(cls, name: str, place_bytes: int, places: int) -> Self:
        """A new object, all of whose memory is there.

        Raises:
            OSError: the system does not give it.
        """
        path, mark = shared_names.FOLDER / name, secrets.token_bytes(_MARK)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            # Now, and all of it: later, there might be no room where it is written to.
            os.posix_fallocate(descriptor, 0, _HEADER + places * place_bytes)
            os.pwrite(descriptor, mark, 0)
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return cls(name, descriptor, place_bytes, places, mark)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return _HEADER + self._count * self._place_bytes

    def is_used(self) -> None:
        """Its client has it open, and needs its name no more."""
        self.used = True
        self.hide()

    def told(self) -> stream_pb2.SharedMemory:
        """As the client is told."""
        return stream_pb2.SharedMemory(
            name=f"/{self._name}",
            mark=self._mark,
            offset=_HEADER,
            place_bytes=self._place_bytes,
            places=self._count,
        )

    def hide(self) -> None:
        """Take its name away; who has it open keeps it."""
        if not self._hidden:
            self._hidden = True
            with suppress(FileNotFoundError):
                (shared_names.FOLDER / self._name).unlink()

    def close(self) -> None:
        """Let go of it and empty it, whoever has it open; what is being read is waited for."""
        self.hide()
        with self._lock:
            self._closed = True
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)

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
        """Where a frame's pixels lie; who says so has the memory open.

        Raises:
            Failure: nowhere in these places.
        """
        self.is_used()
        if sent.place >= self._count:
            found = f"0 to {self._count - 1}, found {sent.place}"
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
