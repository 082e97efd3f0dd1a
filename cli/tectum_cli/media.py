"""Pictures and videos on disk as things to send: files as they are, videos frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tectum_cli.extras import needs

__all__ = ["Picture", "pictures_in"]

_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_VIDEOS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov"})


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to embed."""

    path: Path
    content: bytes | NDArray[np.uint8]
    """A file's bytes, or a video frame uint8[H, W, 3]."""
    frame: int | None = None
    """Place in the video, from 0; None: a still picture."""
    seconds: float | None = None
    """Time in the video."""


def pictures_in(paths: list[Path], every: int) -> Iterator[Picture]:
    """All pictures below the paths, files in name order, each video's every `every`-th frame.

    Raises:
        ValueError: a path that is neither picture, video nor folder, or a video of sound alone.
    """
    for path in paths:
        if path.is_dir():
            for child in sorted(path.rglob("*")):
                if child.suffix.lower() in _IMAGES | _VIDEOS:
                    yield from _pictures_of(child, every)
        elif path.is_file():
            yield from _pictures_of(path, every)
        else:
            raise ValueError(f"{path} does not exist")


def _pictures_of(path: Path, every: int) -> Iterator[Picture]:
    suffix = path.suffix.lower()
    if suffix in _IMAGES:
        yield Picture(path, path.read_bytes())
    elif suffix in _VIDEOS:
        yield from _frames_of(path, every)
    else:
        allowed = ", ".join(sorted(_IMAGES | _VIDEOS))
        raise ValueError(f"{path} is none of {allowed}")


def _frames_of(path: Path, every: int) -> Iterator[Picture]:
    with needs("cli"):
        import av
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError(f"{path} has no pictures")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number % every == 0:
                pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                yield Picture(path, pixels, number, float(frame.time or 0.0))
