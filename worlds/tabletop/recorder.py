"""Writes LeRobot v3.0 data sets, one episode at a time.

Needs pyarrow and PyAV, neither LeRobot nor a simulator. The layout is that of lerobot 0.4: rows of
many episodes in shared parquet files, pictures of many episodes in shared films, and meta/episodes
says where each begins. Memory holds one episode, plus one row of metadata for each.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tabletop.summaries import PictureCounts, Summary, summarise
from tabletop.tables import (
    Feature,
    ParquetFiles,
    data_schema,
    data_table,
    episode_schema,
    task_table,
)
from tabletop.video import CODEC, PIXEL_FORMAT, Encoding, VideoFiles, encode

FORMAT_VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OWN_FEATURES = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
"""Columns LeRobot adds to every data set; the recorder fills them in."""

_MEGABYTE = 1024**2
_METADATA_ROWS = 200  # episodes per row group of meta/episodes: 150 columns make small ones costly


class Recorder:
    """An open data set. Use it in a `with` block: an error inside removes what was written."""

    def __init__(
        self,
        root: Path,
        *,
        rate: int,
        features: Mapping[str, Feature],
        robot_type: str,
        split: str = "train",
        encoding: Encoding | None = None,
        chunks_size: int = 1000,
        data_file_megabytes: float = 100,
        video_file_megabytes: float = 200,
    ) -> None:
        """Start a data set in a new folder.

        Args:
            root: the folder; must not exist.
            rate: rows per second.
            features: the recorded columns, without LeRobot's own.
            robot_type: free text for info.json.
            split: under which name info.json lists the episodes.
            encoding: of the films.
            chunks_size: files per chunk folder.
            data_file_megabytes: a parquet file that would grow beyond it is followed by another.
            video_file_megabytes: likewise for films.

        Raises:
            FileExistsError: the folder exists.
            ValueError: a feature has a name LeRobot keeps for itself.
        """
        taken = sorted(features.keys() & OWN_FEATURES.keys())
        if taken:
            raise ValueError(f"features {taken} are LeRobot's own; leave them to the recorder")
        root.mkdir(parents=True)
        self.root = root
        self._recorded = dict(features)
        self._features = {**features, **OWN_FEATURES}
        self._rate, self._robot_type, self._split = rate, robot_type, split
        self._encoding = encoding or Encoding()
        self._sizes = (chunks_size, data_file_megabytes, video_file_megabytes)

        data_limit, video_limit = (size * _MEGABYTE for size in self._sizes[1:])
        schema, episodes = data_schema(self._features), episode_schema(self._features)
        self._data = ParquetFiles(root, DATA_PATH, schema, data_limit, chunks_size)
        self._episodes = ParquetFiles(root, EPISODES_PATH, episodes, data_limit, chunks_size)
        self._data_schema, self._episode_schema = schema, episodes
        films = [name for name, feature in features.items() if feature.dtype == "video"]
        self._films = {
            name: VideoFiles(
                root,
                # Only the key is filled in here; chunk and file follow with each episode.
                VIDEO_PATH.replace("{video_key}", name),
                rate,
                video_limit,
                chunks_size,
            )
            for name in films
        }
        self._pictures = {name: PictureCounts(features[name].shape[2]) for name in films}
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._length = self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def add_episode(self, columns: Mapping[str, NDArray[Any]], task: str) -> int:
        """Append an episode.

        Args:
            columns: per recorded feature, [T, *shape] (scalars [T]); pictures uint8.
            task: the instruction, the same for all rows.

        Returns:
            The episode's index.

        Raises:
            ValueError: columns are missing, unknown, of unequal length or of the wrong shape.
        """
        length = _checked_length(columns, self._recorded)
        episode = self._count
        number = self._tasks.setdefault(task, len(self._tasks))
        frame = np.arange(length)
        rows = {name: columns[name] for name in self._recorded if name not in self._films}
        rows |= {
            "timestamp": (frame / self._rate).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, episode),
            "index": frame + self._length,
            "task_index": np.full(length, number),
        }
        rows = {name: _typed(values, self._features[name]) for name, values in rows.items()}

        table = data_table(rows, self._data_schema)
        place = self._data.place_for(table.nbytes)
        self._data.write(table)
        record: dict[str, Any] = {
            "episode_index": episode,
            "tasks": [task],
            "length": length,
            "data/chunk_index": place.chunk,
            "data/file_index": place.file,
            "dataset_from_index": self._length,
            "dataset_to_index": self._length + length,
        }
        summaries = {name: summarise(values) for name, values in rows.items()}
        for name, film in self._films.items():
            segment = film.append(encode(columns[name], self._rate, self._encoding))
            record[f"videos/{name}/chunk_index"] = segment.place.chunk
            record[f"videos/{name}/file_index"] = segment.place.file
            record[f"videos/{name}/from_timestamp"] = segment.start
            record[f"videos/{name}/to_timestamp"] = segment.end
            counts = PictureCounts(self._features[name].shape[2])
            counts.add(columns[name])
            self._pictures[name].merge(counts)
            summaries[name] = counts.summary()
        for name, summary in summaries.items():
            record |= {f"stats/{name}/{key}": value for key, value in summary.items()}

        self._rows.append(record)
        self._length += length
        self._count += 1
        if len(self._rows) == _METADATA_ROWS:
            self._flush_metadata()
        return episode

    def close(self) -> None:
        """Finish all files and write meta/info.json, stats.json and tasks.parquet.

        Raises:
            ValueError: there is no episode; the folder is removed, for nothing could read it.
        """
        if self._count == 0:
            self.abandon()
            raise ValueError(f"no episode was recorded into {self.root.name}")
        self._flush_metadata()
        self._close_files()
        meta = self.root / "meta"
        pq.write_table(task_table(list(self._tasks)), meta / "tasks.parquet")
        _write_json(meta / "stats.json", self._statistics())
        _write_json(meta / "info.json", self._information())

    def abandon(self) -> None:
        """Remove everything that was written."""
        self._close_files()
        shutil.rmtree(self.root, ignore_errors=True)

    def _close_files(self) -> None:
        self._data.close()
        self._episodes.close()
        for film in self._films.values():
            film.close()

    def _flush_metadata(self) -> None:
        if not self._rows:
            return
        size = pa.Table.from_pylist(self._rows, schema=self._episode_schema).nbytes
        place = self._episodes.place_for(size)
        for row in self._rows:
            row["meta/episodes/chunk_index"] = place.chunk
            row["meta/episodes/file_index"] = place.file
        self._episodes.write(pa.Table.from_pylist(self._rows, schema=self._episode_schema))
        self._rows = []

    def _statistics(self) -> dict[str, Summary]:
        """Over the whole set: columns are read back one at a time, pictures were counted."""
        statistics: dict[str, Summary] = {}
        files = sorted((self.root / "data").rglob("*.parquet"))
        for name, feature in self._features.items():
            if name in self._pictures:
                statistics[name] = self._pictures[name].summary()
                continue
            parts = [pq.read_table(file, columns=[name]).column(0) for file in files]
            flat = [
                chunk.flatten() if feature.shape != (1,) else chunk
                for part in parts
                for chunk in part.chunks
            ]
            values = np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in flat])
            statistics[name] = summarise(values.reshape(-1, feature.shape[0]))
        return statistics

    def _information(self) -> dict[str, Any]:
        chunks_size, data_megabytes, video_megabytes = self._sizes
        return {
            "codebase_version": FORMAT_VERSION,
            "robot_type": self._robot_type,
            "total_episodes": self._count,
            "total_frames": self._length,
            "total_tasks": len(self._tasks),
            "chunks_size": chunks_size,
            "data_files_size_in_mb": data_megabytes,
            "video_files_size_in_mb": video_megabytes,
            "fps": self._rate,
            "splits": {self._split: f"0:{self._count}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._films else None,
            "features": {
                name: _described(feature, self._rate) for name, feature in self._features.items()
            },
        }


def _checked_length(columns: Mapping[str, NDArray[Any]], features: Mapping[str, Feature]) -> int:
    """The common number of rows."""
    if columns.keys() != features.keys():
        raise ValueError(f"columns are {sorted(columns)}; expected {sorted(features)}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) == 0:
        raise ValueError(f"columns have {lengths} rows; expected one number above 0")
    for name, feature in features.items():
        row = columns[name].shape[1:] or (1,)
        if row != feature.shape:
            raise ValueError(f"a row of {name!r} has shape {row}; expected {feature.shape}")
        if feature.dtype == "video" and columns[name].dtype != np.uint8:
            raise ValueError(f"{name!r} is {columns[name].dtype}; pictures are uint8")
    return next(iter(lengths.values()))


def _typed(values: NDArray[Any], feature: Feature) -> NDArray[Any]:
    """Cast to the feature's type; scalars become [T]."""
    cast = np.asarray(values).astype(np.dtype(feature.dtype))
    return cast.reshape(-1) if feature.shape == (1,) else cast


def _described(feature: Feature, rate: int) -> dict[str, Any]:
    """A feature's entry in info.json."""
    entry: dict[str, Any] = {
        "dtype": feature.dtype,
        "shape": list(feature.shape),
        "names": None if feature.names is None else list(feature.names),
    }
    if feature.dtype == "video":
        height, width, channels = feature.shape
        entry["info"] = {
            "video.height": height,
            "video.width": width,
            "video.codec": CODEC,
            "video.pix_fmt": PIXEL_FORMAT,
            "video.is_depth_map": False,
            "video.fps": rate,
            "video.channels": channels,
            "has_audio": False,
        }
    return entry


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
