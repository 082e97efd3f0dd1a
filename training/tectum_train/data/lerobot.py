"""LeRobot v3.0 folders without the lerobot package: rows, frames and windows of time.

The folder is parquet and mp4 (lerobot's docs/source/lerobot-dataset-v3.mdx); what a reader of it
must not trust is written where it matters. Knows nothing of batches, sampling, models or torch.
"""

# n frames of one episode, T steps of one window, H×W pixels

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tectum_train.data.errors import DataError, Inconsistent
from tectum_train.data.metadata import EpisodeInfo, read_episodes, read_info, read_tasks
from tectum_train.data.rows import EpisodeRows
from tectum_train.data.video import VideoFiles, absent_frame, decode_in_order

__all__ = ["FrameBlock", "LeRobotDataset"]

_OFFSET_TOLERANCE = 1e-4
"""Seconds by which a window's offset may miss a frame's time; lerobot's own default."""


@dataclass(frozen=True, slots=True)
class FrameBlock:
    """Consecutive frames of one episode and camera."""

    episode: EpisodeInfo
    start: int
    """The first frame's index in the episode."""
    frames: NDArray[np.uint8]
    """uint8[n, H, W, 3], RGB."""

    @property
    def first_index(self) -> int:
        """The first frame's index in the whole data set."""
        return self.episode.dataset_from_index + self.start


class LeRobotDataset:
    """One data set, opened by reading its metadata; rows and videos are opened when needed.

    A small, bounded number of files and rows is kept at hand. Not for several threads at once;
    worker processes may be forked from it or get it pickled.
    """

    def __init__(self, root: Path) -> None:
        """Read the metadata.

        Args:
            root: the folder that has `meta/` in it.

        Raises:
            MissingFile: part of the metadata is not there.
            UnsupportedVersion: not format v3; the message names the version.
            Inconsistent: the metadata contradicts itself.
        """
        self.root = root
        self.info = read_info(root)
        self.tasks = read_tasks(root)
        """Task texts by task_index."""
        self.episodes = read_episodes(root, self.info)
        self.cameras = [name for name, feature in self.info.features.items() if feature.is_camera]
        """Features that `read_frames` reads, filmed or stored picture by picture."""
        self._rows = EpisodeRows(self.info, self.episodes)
        self.columns = self._rows.names
        """Features that are numbers or texts, which `read_columns` gives."""
        self.columns = self._rows.names
        """Features that are numbers or texts."""
        self._starts = [episode.dataset_from_index for episode in self.episodes]
        self._videos = VideoFiles(self.info.fps)

    def __len__(self) -> int:
        return self.info.total_frames

    def episode_of(self, index: int) -> EpisodeInfo:
        """Find the episode that a frame of the whole data set belongs to.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index}; the data set has frames 0 to {len(self) - 1}")
        return self.episodes[bisect_right(self._starts, index) - 1]

    def files(self, camera: str) -> list[Path]:
        """List the files that hold a camera's pictures, in the order of their first episode."""
        self._check_camera(camera)
        return list(dict.fromkeys(_file(episode, camera) for episode in self.episodes))

    def check_rows(self) -> None:
        """Prove by the data files' own counts that there are as many frames as the metadata says.

        Raises:
            DataError: a file is missing or unfinished, or has another number of rows.
        """
        self._rows.check_counts()

    def read_columns(self, episode: int, *, pictures: bool = True) -> dict[str, NDArray[Any]]:
        """Read everything of an episode that is not filmed.

        Args:
            episode: its number.
            pictures: whether stored pictures are decoded too.

        Returns:
            By feature: [n] for scalars (shape (1,)), else [n, …] in the declared type and shape;
            stored pictures decoded, uint8[n, H, W, 3]. Features of other types (such as
            lerobot's language events) are left out.

        Raises:
            MissingFile: the parquet file is not there.
            DataError: it is not finished, or holds other rows than the metadata says.
        """
        chosen = self._episode(episode)
        result = self._rows.columns(chosen)
        for camera in self.cameras:
            if pictures and camera not in chosen.videos:
                result[camera] = self._rows.pictures(chosen, camera, range(chosen.length))
        return result

    def read_frames(
        self, episode: int, camera: str, frame_indices: Sequence[int] | None = None
    ) -> NDArray[np.uint8]:
        """Decode frames of one episode.

        Args:
            episode: its number.
            camera: one of `cameras`.
            frame_indices: n indices in the episode, in any order; default: all of them, which
                takes n·H·W·3 bytes.

        Returns:
            uint8[n, H, W, 3], RGB.

        Raises:
            DataError: unknown camera; missing or damaged file; a frame is not at its time, or not
                of the declared size.
            IndexError: the episode has no such frame.
        """
        chosen = self._episode(episode)
        self._check_camera(camera)
        wanted = range(chosen.length) if frame_indices is None else [int(i) for i in frame_indices]
        for index in wanted:
            if not 0 <= index < chosen.length:
                raise IndexError(f"frame {index}; episode {episode} has 0 to {chosen.length - 1}")
        if not wanted:
            return np.empty((0, *self.info.features[camera].picture_size, 3), np.uint8)
        if camera not in chosen.videos:
            return self._rows.pictures(chosen, camera, wanted)
        first = self._first_position(chosen, camera)
        size = self.info.features[camera].picture_size
        reader = self._videos.reader(chosen.videos[camera].path, size)
        return reader.read([first + index for index in wanted])

    def iter_episodes(self, camera: str, *, block: int = 64) -> Iterator[FrameBlock]:
        """Decode a camera's every frame once, file by file and in order.

        Args:
            camera: one of `cameras`.
            block: frames held at a time, at most.

        Yields:
            Blocks of consecutive frames; every episode from its first frame to its last,
            episodes in the order of their place in the files.

        Raises:
            DataError: as `read_frames`; or two episodes claim the same frames of a file.
        """
        self._check_camera(camera)
        by_file: dict[Path, list[EpisodeInfo]] = {}
        for episode in self.episodes:
            by_file.setdefault(_file(episode, camera), []).append(episode)
        for path, sharing in by_file.items():
            if camera in sharing[0].videos:
                yield from self._film(path, camera, sharing, block)
            else:
                yield from self._album(camera, sharing, block)

    def window(self, index: int, offsets: Mapping[str, Sequence[float]]) -> dict[str, NDArray[Any]]:
        """Read features around one frame, as lerobot's `delta_timestamps` does.

        Args:
            index: the frame, in the whole data set.
            offsets: for each feature T times relative to the frame, seconds.

        Returns:
            For each feature [T, …], and under `<feature>_is_pad` bool[T]: true where the time
            lies outside the episode, whose first or last frame is then repeated.

        Raises:
            DataError: no such feature.
            IndexError: no such frame.
            ValueError: an offset that is no multiple of 1 / fps within 0.0001 s.
        """
        episode = self.episode_of(index)
        result: dict[str, NDArray[Any]] = {}
        for key, seconds in offsets.items():
            steps = index - episode.dataset_from_index + self._steps(key, seconds)
            inside = steps.clip(0, episode.length - 1)
            if key in self.cameras:
                result[key] = self.read_frames(episode.index, key, inside.tolist())
            elif key in self.columns:
                result[key] = self._rows.recent(episode)[key][inside]
            else:
                known = ", ".join([*self.columns, *self.cameras])
                raise DataError(f"no feature {key!r} in {self.root}; there are {known}")
            result[f"{key}_is_pad"] = steps != inside
        return result

    def close(self) -> None:
        """Close the open videos; they are opened again when needed."""
        self._videos.close()

    def _episode(self, number: int) -> EpisodeInfo:
        if not 0 <= number < len(self.episodes):
            last = len(self.episodes) - 1
            raise IndexError(f"episode {number}; the data set has episodes 0 to {last}")
        return self.episodes[number]

    def _check_camera(self, camera: str) -> None:
        if camera not in self.cameras:
            known = ", ".join(self.cameras) or "none"
            raise DataError(f"no camera {camera!r} in {self.root}; there are {known}")

    def _first_position(self, episode: EpisodeInfo, camera: str) -> int:
        return round(episode.videos[camera].from_timestamp * self.info.fps)

    def _album(
        self, camera: str, sharing: Sequence[EpisodeInfo], block: int
    ) -> Iterator[FrameBlock]:
        """Read the stored pictures of the episodes in one data file."""
        for episode in sharing:
            for start in range(0, episode.length, block):
                indices = range(start, min(start + block, episode.length))
                yield FrameBlock(episode, start, self._rows.pictures(episode, camera, indices))

    def _film(
        self, path: Path, camera: str, sharing: Sequence[EpisodeInfo], block: int
    ) -> Iterator[FrameBlock]:
        """Cut one file's frames into its episodes."""
        ordered = sorted(sharing, key=lambda episode: self._first_position(episode, camera))
        size = self.info.features[camera].picture_size
        with closing(decode_in_order(path, self.info.fps, size)) as film:
            after = 0
            for episode in ordered:
                first = self._first_position(episode, camera)
                if first < after:
                    raise Inconsistent(
                        f"{path}: by meta/episodes, episode {episode.index} begins before the "
                        "one before it ends"
                    )
                after = first + episode.length
                for start in range(0, episode.length, block):
                    wanted = range(first + start, min(first + start + block, after))
                    yield FrameBlock(episode, start, np.stack(list(self._next(path, film, wanted))))

    def _next(
        self, path: Path, film: Iterator[tuple[int, NDArray[np.uint8]]], wanted: range
    ) -> Iterator[NDArray[np.uint8]]:
        """Take consecutive positions from a film that is somewhere before them."""
        for expected in wanted:
            # Frames between episodes belong to none: editing leaves them behind.
            position, frame = next((found for found in film if found[0] >= expected), (-1, None))
            if frame is None or position != expected:
                raise absent_frame(path, expected, self.info.fps)
            yield frame

    def _steps(self, key: str, seconds: Sequence[float]) -> NDArray[np.int64]:
        """Turn offsets into whole frames: int64[T]."""
        steps = []
        for offset in seconds:
            exact = offset * self.info.fps
            step = round(exact) if math.isfinite(exact) else 0
            if not abs(exact - step) <= _OFFSET_TOLERANCE * self.info.fps:  # NaN fails too
                raise ValueError(
                    f"window of {key!r}: offset {offset} s is no multiple of "
                    f"1/{self.info.fps:g} s within {_OFFSET_TOLERANCE:g} s"
                )
            steps.append(step)
        return np.array(steps, np.int64)


def _file(episode: EpisodeInfo, camera: str) -> Path:
    """The file that holds an episode's pictures of a camera."""
    span = episode.videos.get(camera)
    return span.path if span else episode.data_path
