"""Films: episodes encoded as H.264 and joined end to end, frame for row.

Each episode is encoded by itself, which starts it with a key frame and tells its size before it is
put anywhere; its packets are then copied into the current file. No B-frames: packets lie in the
order of the pictures, so the n-th packet is the n-th row and every time stamp is exact.
"""

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tabletop.tables import Place

# T frames of H×W pixels

CODEC = "h264"
PIXEL_FORMAT = "yuv420p"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How hard to compress."""

    quality: int = 18
    """x264's constant rate factor: 0 loses nothing, 51 is worst; 18 looks like the original."""
    interval: int = 10
    """Frames from one key frame to the next: what a reader decodes for one random frame."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Where an episode lies in the films."""

    place: Place
    start: float
    """Seconds from the beginning of the file."""
    end: float


def encode(frames: NDArray[np.uint8], rate: int, encoding: Encoding) -> bytes:
    """One episode as an MP4 file in memory.

    Args:
        frames: uint8[T, H, W, 3] RGB; H and W even, for colour is stored at half size.
        rate: frames per second.
        encoding: how hard to compress.

    Raises:
        ValueError: H or W is odd.
    """
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"pictures are {width}×{height}; {PIXEL_FORMAT} needs even sides")
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
        stream.codec_context.thread_count = 1  # more would make the bytes depend on the machine
        stream.options = {
            "crf": str(encoding.quality),
            "g": str(encoding.interval),
            "bf": "0",
            "sc_threshold": "0",
        }
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return memory.getvalue()


class VideoFiles:
    """Appends episodes to one MP4 file after another."""

    def __init__(
        self, root: Path, template: str, rate: int, limit: float, chunks_size: int
    ) -> None:
        """Open nothing yet.

        Args:
            root: folder of the data set.
            template: path below it, with {chunk_index} and {file_index}.
            rate: frames per second.
            limit: bytes a file should not exceed.
            chunks_size: files per folder.
        """
        self._root, self._template, self._rate = root, template, rate
        self._limit, self._chunks_size = limit, chunks_size
        self._place = Place()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._header = b""
        self._frames = self._bytes = 0

    def append(self, film: bytes) -> Segment:
        """Copy an encoded episode behind the ones before, in a new file if this one is full."""
        with av.open(io.BytesIO(film), "r") as episode:
            source = episode.streams.video[0]
            header = source.codec_context.extradata or b""
            # A file has one header: an encoder that was set otherwise needs another file.
            fits = self._bytes + len(film) <= self._limit and header == self._header
            if self._container is not None and not fits:
                self.close()
                self._place = self._place.next(self._chunks_size)
            if self._container is None:
                self._open(source, header)
            assert self._container is not None
            assert self._stream is not None
            start = self._frames
            for packet in episode.demux(source):
                if packet.size == 0:  # the reader's end mark
                    continue
                packet.time_base = Fraction(1, self._rate)
                packet.pts = packet.dts = self._frames
                packet.duration = 1
                packet.stream = self._stream
                self._container.mux(packet)
                self._frames += 1
        self._bytes += len(film)  # with its own header, so rather too much than too little
        return Segment(self._place, start / self._rate, self._frames / self._rate)

    def close(self) -> None:
        """Write the index, without which an MP4 file is unreadable."""
        if self._container is not None:
            self._container.close()
        self._container = self._stream = None
        self._frames = self._bytes = 0

    def _open(self, source: VideoStream, header: bytes) -> None:
        path = self._root / self._place.path(self._template)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream_from_template(source)
        self._stream.time_base = Fraction(1, self._rate)
        self._header = header
