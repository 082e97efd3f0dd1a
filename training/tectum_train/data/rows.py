"""The rows of a LeRobot data set: numbers, texts and stored pictures of an episode.

Finds rows by the episode table and proves by the rows' own indices that they are the right
ones; merged and edited data sets are known to disagree (lerobot#2264, #2550).
"""

# n frames of one episode, H×W pixels

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tectum_core.image import ImageError, decode
from tectum_train.data.errors import DataError, Inconsistent
from tectum_train.data.metadata import DatasetInfo, EpisodeInfo
from tectum_train.data.parquet import RowGroups, to_numpy

__all__ = ["EpisodeRows"]

_KEPT_EPISODES = 8
_KEPT_FOOTERS = 64
_TYPES = frozenset(
    [
        *("bool", "string", "float16", "float32", "float64"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    ]
)


class EpisodeRows:
    """All data files of one data set. Keeps footers and a few episodes' columns, no open files."""

    def __init__(self, info: DatasetInfo, episodes: Sequence[EpisodeInfo]) -> None:
        self._features = info.features
        self.names = [name for name, feature in info.features.items() if feature.dtype in _TYPES]
        """Features that are numbers or texts."""
        self._starts: list[int] = []
        self._file_rows: dict[Path, int] = {}
        for episode in episodes:
            start = self._file_rows.get(episode.data_path, 0)
            self._starts.append(start)
            self._file_rows[episode.data_path] = start + episode.length
        self._files: OrderedDict[Path, RowGroups] = OrderedDict()
        self._recent: OrderedDict[int, dict[str, NDArray[Any]]] = OrderedDict()
        self._pictures: tuple[tuple[int, str], Any] | None = None

    def check_counts(self) -> None:
        """Compare every data file's number of rows with what the metadata puts there.

        Raises:
            DataError: a file is missing or unfinished, or the numbers differ.
        """
        for path in self._file_rows:
            self._file(path)

    def columns(self, episode: EpisodeInfo) -> dict[str, NDArray[Any]]:
        """Read numbers and texts: by feature [n] for shape (1,), else [n, *shape].

        Raises:
            DataError: the file is missing or unfinished, or its rows are not the episode's.
        """
        table = self._table(episode, self.names)
        result = {}
        for name in self.names:
            feature = self._features[name]
            values = to_numpy(table[name], name, feature.shape)
            declared = values.dtype if feature.dtype == "string" else np.dtype(feature.dtype)
            result[name] = values.astype(declared, copy=False)
        return result

    def recent(self, episode: EpisodeInfo) -> dict[str, NDArray[Any]]:
        """The same, kept for the next time; not to be written to."""
        if episode.index not in self._recent:
            self._recent[episode.index] = self.columns(episode)
            if len(self._recent) > _KEPT_EPISODES:
                self._recent.popitem(last=False)
        self._recent.move_to_end(episode.index)
        return self._recent[episode.index]

    def pictures(
        self, episode: EpisodeInfo, camera: str, indices: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Decode pictures stored as struct{bytes, path}, PNG or JPEG: uint8[n, H, W, 3].

        Raises:
            DataError: as `columns`; or a picture is damaged or larger than declared.
        """
        height, width = self._features[camera].picture_size
        key = (episode.index, camera)
        if self._pictures is None or self._pictures[0] != key:
            self._pictures = key, self._table(episode, [camera])[camera]
        column = self._pictures[1]
        decoded = []
        for index in indices:
            data = column[index].as_py()["bytes"]
            where = f"{camera!r}, frame {index} of episode {episode.index}"
            if data is None:
                raise Inconsistent(f"{where}: the row has no picture, only a path")
            try:
                decoded.append(decode(data, max_pixels=height * width))
            except ImageError as error:
                raise DataError(f"{where}: {error}") from error
        return np.stack(decoded)

    def _table(self, episode: EpisodeInfo, columns: Sequence[str]) -> pa.Table:
        """Read an episode's rows and check that they are what the metadata says."""
        path = episode.data_path
        rows = self._file(path)
        checked = ["index", "episode_index", "frame_index"]
        missing = {*checked, *columns} - rows.columns
        if missing:
            raise Inconsistent(f"{path} lacks the columns {sorted(missing)}")
        start = self._starts[episode.index]
        needed = list(dict.fromkeys([*checked, *columns]))
        table = rows.read(start, start + episode.length, needed)
        frames = np.arange(episode.length)
        for name, expected in (
            ("index", frames + episode.dataset_from_index),
            ("episode_index", np.full(episode.length, episode.index)),
            ("frame_index", frames),
        ):
            found = to_numpy(table[name], name, ())
            wrong = np.flatnonzero(found != expected)
            if len(wrong):
                row = int(wrong[0])
                raise Inconsistent(
                    f"{path}: row {start + row} has {name} {found[row]}; by meta/episodes it is "
                    f"frame {row} of episode {episode.index}, with {name} {expected[row]}"
                )
        return table

    def _file(self, path: Path) -> RowGroups:
        if path not in self._files:
            rows = RowGroups(path)
            if len(rows) != self._file_rows[path]:
                raise Inconsistent(
                    f"{path} has {len(rows)} rows; meta/episodes puts {self._file_rows[path]} there"
                )
            self._files[path] = rows
            if len(self._files) > _KEPT_FOOTERS:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return self._files[path]
