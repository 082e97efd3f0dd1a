"""Video files to RGB frames, by position at a constant frame rate.

A frame's position is its time rounded to the frame rate given, never the count of packets or
the rate a file claims (H.264 files joined by copying claim wrong ones). Seeking is a guess that
is checked: if the frame that comes out lies behind the one wanted, as in files whose decoding
times are malformed, the search starts earlier, at last from the file's beginning. Knows files
and times; nothing of episodes.
"""

# n frames, H×W pixels

import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tectum_train.data.errors import MissingFile, VideoError

__all__ = ["VideoFiles", "VideoReader", "absent_frame", "decode_in_order"]

_Frames = Iterator[tuple[int, VideoFrame]]

_FORWARD = 48
"""Frames decoded and thrown away rather than sought over; two seconds' worth or so."""
_SEEK_BACK = (0.0, 1.0, 10.0)
"""How far before the wanted frame to begin, seconds, one after the other."""
_MAX_REORDER = 16
"""Frames by which a decoder may answer late: the size of H.264's picture buffer."""
_REORDER = 4
_MAX_THREADS = 4
_INHERITED: list[object] = []
"""Readers that a forked process found open. Kept for good, not closed: closing them would wait
for decoder threads that only the parent has."""


def absent_frame(path: Path, position: int, fps: float) -> VideoError:
    """Make the error that says where in a file no frame was found."""
    return VideoError(
        f"{path}: no frame within half a frame of {position / fps:.3f} s "
        f"(position {position} at {fps:g} frames/s)"
    )


def decode_in_order(
    path: Path, fps: float, size: tuple[int, int]
) -> Generator[tuple[int, NDArray[np.uint8]], None, None]:
    """Decode a whole file once, from its beginning.

    Args:
        path: the file.
        fps: frames per second.
        size: (height, width) that it must have, pixels.

    Yields:
        (position, uint8[H, W, 3]), positions ascending.

    Raises:
        MissingFile: there is no such file.
        VideoError: it is damaged or of another size, or two frames claim one position.
    """
    waiting: list[tuple[int, int, VideoFrame]] = []
    last = -1
    tie = count()  # frames themselves have no order
    with closing(_Decoder(path, fps, size)) as decoder:
        frames = decoder.from_start()
        while True:
            found = next(frames, None)
            if found is not None:
                heappush(waiting, (found[0], next(tie), found[1]))
                if len(waiting) <= _REORDER:
                    continue
            elif not waiting:
                return
            position, _, frame = heappop(waiting)
            if position <= last:
                raise VideoError(f"{path}: two frames at position {last}, or one out of order")
            last = position
            yield position, decoder.rgb(frame)


class VideoReader:
    """One file of frames of a (height, width); fastest when asked forwards."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self.path = path
        self.fps = fps
        self._decoder = _Decoder(path, fps, size)
        self._frames: _Frames | None = None
        self._upcoming = 0

    def read(self, positions: Sequence[int]) -> NDArray[np.uint8]:
        """Decode the frames at these positions.

        Args:
            positions: n ≥ 1 positions in any order; repeats are allowed.

        Returns:
            uint8[n, H, W, 3] in the order asked for.

        Raises:
            VideoError: there is no frame within half a frame's time of a position.
        """
        found: dict[int, NDArray[np.uint8]] = {}
        for run in _runs(sorted(set(positions))):
            found |= self._run(run)
        return np.stack([found[position] for position in positions])

    def close(self) -> None:
        """Give the file back."""
        self._frames = None
        self._decoder.close()

    def _run(self, wanted: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
        """Decode ascending positions that lie near each other."""
        # What a wrong seek leads to is no proof of damage, so errors count only from the start on.
        for begin in self._beginnings(wanted[0]):
            with suppress(VideoError):
                self._frames = begin()
                found = self._collect(self._frames, wanted)
                if len(found) == len(wanted):
                    return found
        self._frames = self._decoder.from_start()
        found = self._collect(self._frames, wanted)
        absent = [position for position in wanted if position not in found]
        if absent:
            raise absent_frame(self.path, absent[0], self.fps)
        return found

    def _beginnings(self, position: int) -> Iterator[Callable[[], _Frames]]:
        """Ways to reach a position, the cheapest first; none of them is sure to."""
        frames = self._frames
        if frames is not None and 0 <= position - self._upcoming <= _FORWARD:
            yield lambda: frames
        for back in _SEEK_BACK:
            seconds = position / self.fps - back
            if seconds > 0:
                yield partial(self._decoder.from_time, seconds)

    def _collect(self, frames: _Frames, wanted: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
        """Decode until all wanted frames were met, or cannot come any more."""
        found: dict[int, NDArray[np.uint8]] = {}
        remaining = set(wanted)
        for position, frame in frames:
            self._upcoming = position + 1
            if position in remaining:
                remaining.discard(position)
                found[position] = self._decoder.rgb(frame)
            if not remaining:
                return found
            if position > min(remaining) + _MAX_REORDER:
                break
        self._frames = None  # at the end, or astray: no place to go on from
        return found


class VideoFiles:
    """A bounded number of open readers; the one used longest ago is closed first.

    Not for several threads at once. A forked process starts with none open, because decoders
    and file positions cannot be shared.
    """

    def __init__(self, fps: float, capacity: int = 8) -> None:
        self._fps = fps
        self._capacity = capacity
        self._readers: OrderedDict[tuple[Path, tuple[int, int]], VideoReader] = OrderedDict()
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._readers)

    def __reduce__(self) -> tuple[type["VideoFiles"], tuple[float, int]]:
        """Leave the open files behind when pickled, as for a spawned worker."""
        return VideoFiles, (self._fps, self._capacity)

    def reader(self, path: Path, size: tuple[int, int]) -> VideoReader:
        """Get the reader of a file, opened if it is not yet.

        Args:
            path: the file.
            size: (height, width) that it must have, pixels.

        Raises:
            MissingFile: there is no such file.
            VideoError: it cannot be opened as a video, or is of another size.
        """
        if self._process != os.getpid():
            _INHERITED.append(self._readers)
            self._readers = OrderedDict()
            self._process = os.getpid()
        key = path, size
        if key not in self._readers:
            self._readers[key] = VideoReader(path, self._fps, size)
            if len(self._readers) > self._capacity:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(key)
        return self._readers[key]

    def close(self) -> None:
        """Close all of them."""
        while self._readers:
            self._readers.popitem()[1].close()


class _Decoder:
    """A container and its video stream; every start yields (position, frame) from there on."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self.path = path
        self.fps = fps
        self.size = size
        # One for all frames: each frame's own would be set up anew, which takes ten times as long.
        self._converter = VideoReformatter()
        self._open()

    def _open(self) -> None:
        try:
            self._container = av.open(str(self.path))
        except FileNotFoundError as error:
            raise MissingFile(f"the video {self.path} is missing") from error
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path} cannot be opened as a video: {error}") from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(f"{self.path} has no video stream")
        self._stream = self._container.streams.video[0]
        # Before anything is decoded: a file of a few bytes can hold frames of gigabytes.
        found = (self._stream.height, self._stream.width)
        if found != self.size:
            self._container.close()
            raise VideoError(
                f"{self.path} has frames of {found[0]}×{found[1]} pixels (height × width); the "
                f"data set declares {self.size[0]}×{self.size[1]}"
            )
        # All cores for each of many open files, in each of many workers, is slower than few.
        self._stream.codec_context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
        self._stream.thread_type = "AUTO"
        self._fresh = True

    def from_start(self) -> _Frames:
        """Decode from the first packet. Opens the file anew: seeking to 0 may skip frames."""
        if not self._fresh:
            self.close()
            self._open()
        self._fresh = False
        return self._decode()

    def from_time(self, seconds: float) -> _Frames:
        """Decode from the last key frame before a time, or so the file's index claims."""
        self._fresh = False
        base = self._stream.time_base
        if base is None:
            raise VideoError(f"{self.path} has no time base")
        try:
            self._container.seek(int(seconds / base), stream=self._stream, backward=True)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path}: cannot seek to {seconds:.3f} s: {error}") from error
        return self._decode()

    def rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert to uint8[H, W, 3]."""
        converted = self._converter.reformat(frame, format="rgb24")
        return np.asarray(converted.to_ndarray(), np.uint8)

    def close(self) -> None:
        self._container.close()

    def _decode(self) -> _Frames:
        height, width = self.size
        try:
            for frame in self._container.decode(self._stream):
                if frame.pts is None or frame.time_base is None:
                    raise VideoError(f"{self.path}: a frame without a time")
                seconds = float(frame.pts * frame.time_base)
                if frame.is_corrupt or (frame.height, frame.width) != self.size:
                    raise VideoError(
                        f"{self.path}: the frame at {seconds:.3f} s is damaged, or not "
                        f"{height}×{width} pixels as the file says"
                    )
                yield round(seconds * self.fps), frame
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path} cannot be decoded: {error}") from error


def _runs(positions: Sequence[int]) -> Iterator[list[int]]:
    """Cut ascending positions where the gap is worth a seek."""
    run: list[int] = []
    for position in positions:
        if run and position - run[-1] > _FORWARD:
            yield run
            run = []
        run.append(position)
    yield run
