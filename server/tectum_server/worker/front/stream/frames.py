"""The frames of one stream: read off the wire, and the recent ones kept to be paired.

Knows ids, times and sizes; when a frame is computed, and what is said of it, is `stream`'s.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tectum.v1 import errors_pb2, image_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.images import Pixels
from tectum_server.worker.front.memory import Share
from tectum_server.worker.front.messages.wire import (
    out_of_range,
    read_offset,
    read_seconds,
    read_timestamp,
)
from tectum_server.worker.front.methods.latents import Interval
from tectum_server.worker.front.sharing import SharedPicture, SharedPlaces

__all__ = ["Arrivals", "Frame", "Ring", "read_lifespan"]

_DEFAULT_LIFESPAN, _LONGEST_LIFESPAN = 1.0, 60.0
_RING_FRAMES, _RING_BYTES = 64, 64 * 2**20


@dataclass(slots=True, eq=False)
class Frame:
    """A frame on its way, and what of the worker's memory it takes.

    Whoever reads it holds it; others `keep` it and `drop` it, and after the last one it is gone.
    """

    frame_id: int
    content: image_pb2.Image | SharedPicture | Pixels
    """As sent until it is read; then its pixels alone."""
    captured_at: float
    """Seconds since the epoch, on the camera's clock."""
    timed: bool
    """Whether the client said when it was captured."""
    expires: float
    """Monotonic seconds."""
    memory: Share
    """What its content takes."""
    lifespan: float = 0.0
    """Seconds from its capture until it expires."""
    clock_offset: float = 0.0
    """Seconds to add to `captured_at` for this worker's clock."""
    resized: stream_pb2.Resized | None = None
    """How the client brought its picture to the model's size; None: it did not."""
    wrong: Failure | None = None
    """Why it can have no answer, if it is known from the beginning."""
    _holders: int = 1

    @property
    def age(self) -> float:
        """Seconds since it was captured, never negative: a camera's clock may run ahead."""
        return max(0.0, time.time() - self.captured_at - self.clock_offset)

    def keep(self) -> None:
        """Hold it, too."""
        self._holders += 1

    def drop(self) -> None:
        """Hold it no more."""
        self._holders -= 1
        if not self._holders:
            self.content = image_pb2.Image()
            self.memory.release()


class Arrivals:
    """Reads frames in the order they come; their ids and their times must rise.

    Args:
        lifespan: seconds for frames that name none.
    """

    def __init__(self, lifespan: float) -> None:
        self._lifespan = lifespan
        self._last_id = -1
        self._last_time: float | None = None

    def read(
        self,
        sent: stream_pb2.StreamFrame,
        size: int,
        memory: Share,
        places: SharedPlaces | None = None,
    ) -> Frame:
        """The next frame.

        Args:
            sent: as it came.
            size: bytes that it takes so.
            memory: from which it shall take them.
            places: where its pixels may lie; None: nowhere.

        Raises:
            Failure: the stream cannot go on, for this frame's answer could not be told from
                another's.
        """
        if sent.frame_id <= self._last_id:
            raise out_of_range(
                "frame.frame_id",
                f"rises from frame to frame; found {sent.frame_id} after {self._last_id}",
            )
        self._last_id = sent.frame_id
        frame = Frame(
            frame_id=sent.frame_id,
            content=sent.image,
            captured_at=time.time(),
            timed=sent.HasField("captured_at"),
            expires=0.0,
            memory=memory,
            resized=sent.resized if sent.HasField("resized") else None,
        )
        lifespan = self._lifespan
        try:
            if frame.timed:  # first: a later frame is compared with it, whatever else is wrong
                frame.captured_at = read_timestamp(sent.captured_at, "frame.captured_at")
                self._follow(frame.captured_at)
                frame.clock_offset = read_offset(sent.clock_offset, "frame.clock_offset")
            lifespan = read_lifespan(sent, self._lifespan, "frame.lifespan")
            memory.take_message(size, "frame")
            if sent.HasField("shared"):
                frame.content = _shared(sent, places)
        except Failure as failure:
            frame.wrong = failure.with_traceback(None)  # which would hold the frame
        frame.lifespan = lifespan
        frame.expires = time.monotonic() + lifespan - frame.age
        return frame

    def _follow(self, captured_at: float) -> None:
        """Compare with the frame before, whatever became of it: a clock that jumps costs one.

        Raises:
            Failure: INTERVAL_MISMATCH.
        """
        before, self._last_time = self._last_time, captured_at
        if before is not None and captured_at <= before:
            raise Failure(
                errors_pb2.ERROR_REASON_INTERVAL_MISMATCH,
                f"rises from frame to frame; found {before - captured_at:g} s before the last one",
                "frame.captured_at",
            )


class Ring:
    """The frames that a later one may be paired with: recent, few, and not too large."""

    def __init__(self, interval: Interval) -> None:
        self.interval = interval
        self._frames: deque[Frame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame, oldest: Frame | None = None) -> None:
        """Keep a frame, and forget what is too far from those that wait for any pair to come.

        Args:
            frame: the newest.
            oldest: of those that wait; None: the newest.
        """
        if not frame.timed:
            return
        frame.keep()
        first = frame if oldest is None or not oldest.timed else oldest
        of_use_from = min(first.captured_at, frame.captured_at) - self.interval.reach
        self._keep_those(lambda f: of_use_from <= f.captured_at < frame.captured_at)
        self._frames.append(frame)
        while len(self) > 1 and (len(self) > _RING_FRAMES or self._size > _RING_BYTES):
            self.shrink()

    def shrink(self) -> bool:
        """Forget the oldest frame; whether there was one."""
        if not self._frames:
            return False
        self._frames.popleft().drop()
        return True

    def forget_the_useless(self) -> None:
        """Forget what no frame that is still of use can be paired with, of a camera gone quiet."""
        now = time.monotonic() - self.interval.reach
        self._keep_those(lambda f: f.expires > now)

    def clear(self) -> None:
        """Forget every frame."""
        self._keep_those(lambda _: False)

    def before(self, frame: Frame) -> Frame | None:
        """The frame nearest one interval before this one, if it lies within the tolerance."""
        if not frame.timed:
            return None
        wanted = frame.captured_at - self.interval.seconds
        older = [f for f in self._frames if f.frame_id < frame.frame_id]
        nearest = min(older, key=lambda f: abs(f.captured_at - wanted), default=None)
        if nearest is None or not self.interval.holds(frame.captured_at - nearest.captured_at):
            return None
        return nearest

    @property
    def _size(self) -> int:
        """Bytes."""
        return sum(frame.memory.held for frame in self._frames)

    def _keep_those(self, wanted: Callable[[Frame], bool]) -> None:
        for _ in range(len(self)):
            frame = self._frames.popleft()
            if wanted(frame):
                self._frames.append(frame)
            else:
                frame.drop()


def read_lifespan(
    message: stream_pb2.StreamSetup | stream_pb2.StreamFrame,
    default: float = _DEFAULT_LIFESPAN,
    field: str = "setup.lifespan",
) -> float:
    """How long frames stay useful, seconds.

    Raises:
        Failure: FIELD_OUT_OF_RANGE.
    """
    if not message.HasField("lifespan"):
        return default
    return read_seconds(message.lifespan, field, at_most=_LONGEST_LIFESPAN)


def _shared(sent: stream_pb2.StreamFrame, places: SharedPlaces | None) -> SharedPicture:
    """Where a frame's pixels lie.

    Raises:
        Failure: nowhere, or it has others as well.
    """
    if places is None:
        raise out_of_range("frame.shared", "allowed: with shared memory that the worker gave")
    if sent.HasField("image"):
        raise out_of_range("frame.shared", "allowed: without an image beside it")
    return places.picture(sent.shared)
