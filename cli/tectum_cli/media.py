"""Pictures and videos on disk as things to send: files as they are, videos frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tectum_cli.extras import needs

__all__ = ["Content", "Picture", "Unreadable", "pictures_in"]

Content = bytes | NDArray[np.uint8]
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_VIDEOS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov"})


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to embed."""

    path: Path
    content: Content
    """A file's bytes, or a video frame uint8[H, W, 3]."""
    frame: int | None = None
    """Place in the video, from 0; None: a still picture."""
    seconds: float | None = None
    """Time in the video."""

    @property
    def size(self) -> int:
        """Bytes of what is sent."""
        return self.content.nbytes if isinstance(self.content, np.ndarray) else len(self.content)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file, or the rest of a video, that could not be read."""

    path: Path
    why: str
    """For people; names no path."""
    frame: int | None = None
    """The first frame that is missing; None: no frame could be read, or it is a still picture."""


def pictures_in(
    paths: list[Path], every: int, skipped: list[Path] | None = None
) -> Iterator[Picture | Unreadable]:
    """All pictures below the paths, files in name order, each video's every `every`-th frame.

    What cannot be read stands in its place, so that one broken file costs no other. `skipped` takes
    files in folders that are neither.

    Raises:
        ValueError: a path that is not there, or neither picture, video nor folder; before any
            file is read.
    """
    allowed = _IMAGES | _VIDEOS
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} does not exist")
        if not path.is_dir() and path.suffix.lower() not in allowed:
            raise ValueError(f"{path} is none of {', '.join(sorted(allowed))}")
    return _read(paths, every, [] if skipped is None else skipped)


def _read(paths: list[Path], every: int, skipped: list[Path]) -> Iterator[Picture | Unreadable]:
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            suffix = file.suffix.lower()
            if suffix in _VIDEOS:
                yield from _frames_of(file, every)
            elif suffix in _IMAGES:
                yield _picture_of(file)
            elif not file.is_dir():
                skipped.append(file)


def _picture_of(path: Path) -> Picture | Unreadable:
    try:
        content = path.read_bytes()
    except OSError as error:
        return Unreadable(path, error.strerror or "cannot be read")
    return Picture(path, content) if content else Unreadable(path, "is empty")


def _frames_of(path: Path, every: int) -> Iterator[Picture | Unreadable]:
    with needs("cli"):
        import av
        from av.video.reformatter import VideoReformatter
    number, converter = -1, VideoReformatter()  # one for all frames: to set it up takes longest
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                yield Unreadable(path, "has no pictures")
                return
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number % every == 0:
                    converted = converter.reformat(frame, format="rgb24")
                    pixels = np.asarray(converted.to_ndarray(), np.uint8)
                    yield Picture(path, pixels, number, float(frame.time or 0.0))
    except (av.FFmpegError, OSError) as error:
        why = getattr(error, "strerror", None) or "cannot be decoded"
        yield Unreadable(path, why, None if number < 0 else number + 1)
