"""Frames in the worker's shared memory, for a robot's program on the worker's host.

The worker names the memory and says what it begins with; what cannot be opened, or begins with
something else, is another host's, and frames then travel in messages. Pixels are written to a
descriptor, never to a mapping: nothing that is done to the memory ends this process.
"""

import os
import re
import stat
import threading
from collections import deque
from pathlib import Path

from tectum.v1 import image_pb2, stream_pb2

_FOLDER = Path("/dev/shm")  # noqa: S108 - Linux's own for POSIX shared memory
_NAME = re.compile(r"/tectum-[0-9a-f]{32}")
_SHORTEST_MARK, _MOST_PLACES, _LONGEST_HEADER = 16, 64, 2**20


class SharedPlaces:
    """What a worker gave to a stream; one thread may put frames while another frees places."""

    def __init__(self, descriptor: int, told: stream_pb2.SharedMemory) -> None:
        self._descriptor: int | None = descriptor
        self._offset, self._bytes = told.offset, told.place_bytes
        self._free = deque(range(told.places))
        self._taken: dict[int, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, told: stream_pb2.SharedMemory, asked: int) -> "SharedPlaces | None":
        """What the worker has told of.

        Args:
            told: Its words.
            asked: Bytes of a place that it was asked for.

        Returns:
            None: it is not to be had here, or is not as it must be.
        """
        if not _NAME.fullmatch(told.name) or told.place_bytes != asked or asked < 1:
            return None
        if not 1 <= told.places <= _MOST_PLACES or told.offset > _LONGEST_HEADER:
            return None
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(_FOLDER / told.name[1:], flags)
        except OSError:
            return None
        if _is_what_was_told_of(descriptor, told):
            return cls(descriptor, told)
        os.close(descriptor)
        return None

    def put(self, frame_id: int, raw: image_pb2.RawImage) -> stream_pb2.SharedPixels | None:
        """Let a frame's pixels lie there.

        Args:
            frame_id: Whose answer frees the place.
            raw: The pixels.

        Returns:
            Where. None: there is no place free, or none that is large enough.
        """
        data = raw.data
        with self._lock:
            if self._descriptor is None or not self._free or len(data) > self._bytes:
                return None
            place = self._free.popleft()
            try:
                wrote = os.pwrite(self._descriptor, data, self._offset + place * self._bytes)
            except OSError:  # somebody has made it smaller, and there is no more room
                wrote = 0
            if wrote != len(data):
                self._free.append(place)
                return None
            self._taken[frame_id] = place
        return stream_pb2.SharedPixels(place=place, height=raw.height, width=raw.width)

    def free(self, frame_id: int) -> None:
        """A frame was answered: its place, if it had one, is free."""
        with self._lock:
            place = self._taken.pop(frame_id, None)
            if place is not None:
                self._free.append(place)

    def close(self) -> None:
        """Let go of the memory; nothing can be put any more."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def _is_what_was_told_of(descriptor: int, told: stream_pb2.SharedMemory) -> bool:
    """Whether it is a file of this user's, large enough, that begins with the worker's mark."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return False
        begins = os.pread(descriptor, len(told.mark), 0)
    except OSError:
        return False
    large_enough = found.st_size >= told.offset + told.places * told.place_bytes
    return large_enough and len(told.mark) >= _SHORTEST_MARK and begins == told.mark
