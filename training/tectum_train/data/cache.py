"""Every frame of a camera, decoded once and resized, in one memory-mapped array.

Decoding video costs more than a training step on small inputs; after the first epoch it is a
cost for nothing. The array lies in a folder named by a hash of everything it depends on, so a
changed data set or another resize never meets an old cache, and it appears there by one rename,
so a build that was interrupted is never mistaken for a whole one.

Layout: `<folder>/<key>/frames.npy` (uint8[N, S, S, 3], plain numpy) and `index.json`.
"""

# N frames of the data set, n of one block, S the side of the model's input

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tectum_train.data.errors import Inconsistent, MissingFile
from tectum_train.data.lerobot import LeRobotDataset

__all__ = ["FrameCache"]

_LAYOUT = 1
_FRAMES, _INDEX = "frames.npy", "index.json"

Resize = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


class FrameCache:
    """A camera's frames, resized: uint8[N, S, S, 3] by index in the whole data set."""

    def __init__(self, path: Path) -> None:
        """Open a complete cache; `open` finds or builds it."""
        self.path = path
        self.index: dict[str, Any] = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        """What it was made of, for people."""
        self.frames: NDArray[np.uint8] = np.load(path / _FRAMES, mmap_mode="r", allow_pickle=False)
        """uint8[N, S, S, 3], read-only and memory-mapped: only what is touched takes memory."""

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def open(
        cls,
        dataset: LeRobotDataset,
        camera: str,
        resize: Resize,
        *,
        resize_identity: str,
        folder: Path,
        progress: Callable[[int, int], None] | None = None,
    ) -> "FrameCache":
        """Open the cache of one camera, building it first if there is none.

        Several processes may call this at once: one builds, the others wait for it.

        Args:
            dataset: where the frames come from.
            camera: one of its cameras.
            resize: uint8[n, H, W, 3] → uint8[n, S, S, 3]; called with at most 64 frames.
            resize_identity: a text that differs whenever `resize` may give other values.
            folder: where caches lie; made if it is not there.
            progress: called during a build with the frames done and the frames in all.

        Raises:
            DataError: the data set cannot be read.
            ValueError: `resize` gave another type, number or shape than it should.
        """
        identity = _identity(dataset, camera, resize_identity)
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        path = folder / key
        if not (path / _INDEX).exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / f"{key}.lock"):
                if not (path / _INDEX).exists():
                    _build(dataset, camera, resize, identity, path, progress)
        return cls(path)


def _identity(dataset: LeRobotDataset, camera: str, resize_identity: str) -> dict[str, Any]:
    """Everything the cached values depend on."""
    metadata = sorted((dataset.root / "meta" / "episodes").glob("**/*.parquet"))
    files = {}
    for path in [*metadata, *dataset.files(camera)]:
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise MissingFile(f"{path} is missing") from error
        relative = path.relative_to(dataset.root).as_posix()
        files[relative] = [status.st_size, status.st_mtime_ns]
    info = (dataset.root / "meta" / "info.json").read_bytes()
    return {
        "layout": _LAYOUT,
        "camera": camera,
        "resize": resize_identity,
        "info": hashlib.sha256(info).hexdigest(),
        "files": files,
    }


def _build(
    dataset: LeRobotDataset,
    camera: str,
    resize: Resize,
    identity: dict[str, Any],
    path: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Decode and write everything beside `path`, then rename it there."""
    partial = path.with_name(path.name + ".partial")
    # Under the lock: whatever lies here was left by a build that died.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # The episode table's word is not enough to take memory for.
    dataset.check_rows()
    total = len(dataset)
    frames: np.memmap[Any, np.dtype[np.uint8]] | None = None
    written = np.zeros(total, np.bool_)
    for block in dataset.iter_episodes(camera):
        small = _resized(resize, block.frames, None if frames is None else frames.shape[1])
        if frames is None:
            shape = (total, *small.shape[1:])
            frames = np.lib.format.open_memmap(
                partial / _FRAMES, mode="w+", dtype=np.uint8, shape=shape
            )
        indices = slice(block.first_index, block.first_index + len(small))
        frames[indices] = small
        written[indices] = True
        if progress is not None:
            progress(int(written.sum()), total)
    if frames is None or not written.all():
        raise Inconsistent(
            f"camera {camera!r} has {int(written.sum())} frames; the data set has {total}"
        )
    frames.flush()
    index = {**identity, "frames": total, "side": frames.shape[1]}
    del frames
    _write_durably(partial / _INDEX, json.dumps(index, indent=1))
    shutil.rmtree(path, ignore_errors=True)  # without its index.json: someone's remains
    partial.rename(path)


def _resized(resize: Resize, frames: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """Resize one block and check what came back; `side` is that of the blocks before."""
    small = resize(frames)
    sides = set(small.shape[1:3]) | ({side} if side else set())
    fits = small.ndim == 4 and len(small) == len(frames) and small.shape[3] == 3
    if small.dtype != np.uint8 or not fits or len(sides) != 1:
        raise ValueError(
            f"resize made {small.dtype}{list(small.shape)} of uint8{list(frames.shape)}; "
            f"expected uint8[{len(frames)}, S, S, 3] with S = {side or 'any'}"
        )
    return small


def _write_durably(path: Path, text: str) -> None:
    """Write and sync, so that the rename cannot reach the disk before the content."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the system lets go of it if this process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
