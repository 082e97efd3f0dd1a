"""A LeRobot v3.0 folder's metadata: info.json, the tasks, and where each episode lies.

Reads `meta/` only. Which file holds an episode, and where in it, comes from the episode table
and never from file names: after merging and editing those tell nothing (lerobot#2264, #2328).
"""

import json
import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from tectum_train.data.errors import Inconsistent, MissingFile, UnsupportedVersion
from tectum_train.data.parquet import read_table, to_numpy

__all__ = [
    "DatasetInfo",
    "EpisodeInfo",
    "Feature",
    "VideoSpan",
    "read_episodes",
    "read_info",
    "read_tasks",
]

_NUMBER = re.compile(r"((0\d?)?d)?")
"""Format of a template's number: plain, or padded with zeros to at most nine digits."""


class Feature(BaseModel):
    """One feature of the data set, as info.json describes it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dtype: str
    """A numpy type's name, or "string", "image" or "video"."""
    shape: tuple[int, ...]
    """Of one frame's value; (1,) means a scalar. Pictures: height, width, channels, usually."""
    names: Any = None
    """Names of the dimensions or of the vector's elements, in whatever form they were given."""
    info: dict[str, Any] | None = None
    """About a video: codec, size and so on."""

    @property
    def is_camera(self) -> bool:
        """Whether this is colour pictures, filmed or one by one; depth maps are not."""
        depth = bool((self.info or {}).get("video.is_depth_map"))
        return self.dtype in ("image", "video") and not depth

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width), for a camera; some data sets put the channels first."""
        if len(self.shape) != 3:
            raise Inconsistent(f"a picture of shape {self.shape}; allowed are three dimensions")
        if self.shape[2] not in (1, 3, 4) and self.shape[0] in (1, 3, 4):
            return self.shape[1], self.shape[2]
        return self.shape[0], self.shape[1]


class DatasetInfo(BaseModel):
    """info.json; keys that are not named here are ignored, as the format asks."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    codebase_version: str
    """Version of the format, such as "v3.0"."""
    fps: PositiveFloat
    """Frames per second, of every camera and every row. The videos' own rates are not trusted."""
    features: dict[str, Feature]
    """Everything a frame has, by name."""
    total_episodes: int = Field(ge=0)
    """Rows of the episode table."""
    total_frames: int = Field(ge=0)
    """Rows of all data files together."""
    data_path: str
    """Template of a data file's path, with chunk_index and file_index."""
    video_path: str | None = None
    """Template of a video's path, with video_key, chunk_index and file_index; None: no videos."""
    robot_type: str | None = None
    """What was recorded."""


@dataclass(frozen=True, slots=True)
class VideoSpan:
    """Where one camera's film of one episode lies."""

    path: Path
    """The video file; other episodes may share it."""
    from_timestamp: float
    """Time of the episode's first frame in that file, seconds."""
    to_timestamp: float
    """Time of the end of its last frame, seconds."""


@dataclass(frozen=True, slots=True)
class EpisodeInfo:
    """One row of the episode table."""

    index: int
    """The episode's number, from 0."""
    length: int
    """Frames."""
    tasks: tuple[str, ...]
    """What is done in it, in no particular order."""
    dataset_from_index: int
    """Index of its first frame in the whole data set."""
    dataset_to_index: int
    """Index after its last frame in the whole data set."""
    data_path: Path
    """The parquet file with its rows; other episodes may share it."""
    videos: Mapping[str, VideoSpan]
    """By camera; empty for cameras whose pictures are in the rows."""


def read_info(root: Path) -> DatasetInfo:
    """Read meta/info.json.

    Raises:
        MissingFile: it is not there.
        UnsupportedVersion: the data set is not in format v3.
        Inconsistent: it is not what the format asks; the message names the key.
    """
    path = root / "meta" / "info.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFile(f"{path} is missing: {root} is no LeRobot data set") from error
    except ValueError as error:
        raise Inconsistent(f"{path} is not JSON: {error}") from error
    version = content.get("codebase_version") if isinstance(content, dict) else None
    # The version first: older formats have other keys.
    if not (isinstance(version, str) and version.startswith("v3.")):
        raise UnsupportedVersion(
            f"{root} has codebase_version {version!r}; only v3.x is read (lerobot's "
            "convert_dataset_v21_to_v30 converts older ones)"
        )
    try:
        return DatasetInfo.model_validate(content)
    except ValidationError as error:
        raise Inconsistent(f"{path}: {error}") from error


def read_tasks(root: Path) -> list[str]:
    """Read meta/tasks.parquet: the task texts by task_index.

    Raises:
        Inconsistent: the indices are not 0 … n − 1.
    """
    path = root / "meta" / "tasks.parquet"
    table = read_table(path)
    # The text is the pandas index, whose name lerobot sets only since 0.5.
    texts = [name for name in ("task", "__index_level_0__") if name in table.column_names]
    if not texts or "task_index" not in table.column_names:
        raise Inconsistent(f"{path} has columns {table.column_names}; needed: task, task_index")
    numbers = to_numpy(table["task_index"], "task_index", ()).tolist()
    by_number = dict(zip(numbers, to_numpy(table[texts[0]], texts[0], ()).tolist(), strict=True))
    if sorted(by_number) != list(range(table.num_rows)):
        raise Inconsistent(f"{path} has task indices {sorted(numbers)}; expected 0, 1, 2, …")
    return [by_number[number] for number in range(table.num_rows)]


def read_episodes(root: Path, info: DatasetInfo) -> list[EpisodeInfo]:
    """Read meta/episodes: all episodes, ordered by their number.

    Raises:
        MissingFile: there are no such files.
        Inconsistent: numbers or frame ranges have gaps or overlap, or totals differ.
    """
    paths = sorted((root / "meta" / "episodes").glob("**/*.parquet"))
    if not paths and info.total_episodes:
        raise MissingFile(f"{root / 'meta' / 'episodes'} has no parquet files")
    rows = [row for path in paths for row in _episode_rows(path, info)]
    rows.sort(key=lambda row: row["episode_index"])
    episodes = [_episode(root, info, row) for row in rows]
    first = 0
    for number, episode in enumerate(episodes):
        found = (episode.index, episode.dataset_from_index, episode.dataset_to_index)
        expected = (number, first, first + episode.length)
        if found != expected or episode.length < 1:
            raise Inconsistent(
                f"meta/episodes: episode {episode.index} has frames {found[1]} to {found[2]} "
                f"and length {episode.length}; expected episode {number} from frame {first} on"
            )
        first += episode.length
    if (len(episodes), first) != (info.total_episodes, info.total_frames):
        raise Inconsistent(
            f"meta/episodes has {len(episodes)} episodes of {first} frames together; "
            f"info.json says {info.total_episodes} and {info.total_frames}"
        )
    return episodes


def _video_keys(info: DatasetInfo) -> list[str]:
    return [key for key, feature in info.features.items() if feature.dtype == "video"]


def _episode_rows(path: Path, info: DatasetInfo) -> list[dict[str, Any]]:
    """Read the columns that are needed; the statistics beside them are much larger."""
    whole = ["episode_index", "length", "dataset_from_index", "dataset_to_index"]
    places = ["data"] + [f"videos/{key}" for key in _video_keys(info)]
    whole += [f"{place}/{index}_index" for place in places for index in ("chunk", "file")]
    times = [f"{place}/{end}_timestamp" for place in places[1:] for end in ("from", "to")]
    table = read_table(path, [*whole, *times, "tasks"])
    missing = {*whole, *times, "tasks"} - set(table.column_names)
    if missing:
        raise Inconsistent(f"{path} lacks the columns {sorted(missing)}")
    columns = {name: to_numpy(table[name], name, ()).tolist() for name in (*whole, *times)}
    for name in times:
        if not all(0 <= seconds < math.inf for seconds in columns[name]):
            raise Inconsistent(f"{path}: {name} has negative or infinite times")
    columns["tasks"] = table["tasks"].to_pylist()
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _episode(root: Path, info: DatasetInfo, row: Mapping[str, Any]) -> EpisodeInfo:
    videos = {}
    for key in _video_keys(info):
        if info.video_path is None:
            raise Inconsistent(f"info.json has the video {key!r} but no video_path")
        place = f"videos/{key}"
        videos[key] = VideoSpan(
            path=_located(root, info.video_path, row, place, video_key=key),
            from_timestamp=row[f"{place}/from_timestamp"],
            to_timestamp=row[f"{place}/to_timestamp"],
        )
    return EpisodeInfo(
        index=row["episode_index"],
        length=row["length"],
        tasks=tuple(row["tasks"] or ()),
        dataset_from_index=row["dataset_from_index"],
        dataset_to_index=row["dataset_to_index"],
        data_path=_located(root, info.data_path, row, "data"),
        videos=videos,
    )


def _located(root: Path, template: str, row: Mapping[str, Any], place: str, **names: str) -> Path:
    """Fill in a path template; what comes out must stay inside the data set's folder."""
    _check_template(template)
    try:
        relative = PurePosixPath(
            template.format(
                chunk_index=row[f"{place}/chunk_index"],
                file_index=row[f"{place}/file_index"],
                **names,
            )
        )
    except (KeyError, ValueError) as error:
        raise Inconsistent(f"info.json has the path template {template!r}: {error!r}") from error
    if relative.is_absolute() or ".." in relative.parts:
        raise Inconsistent(f"info.json leads out of the data set's folder, to {relative}")
    return root / relative


def _check_template(template: str) -> None:
    """That nothing but names and short numbers is filled in; other formats can fill memory."""
    try:
        fields = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise Inconsistent(f"info.json has the path template {template!r}: {error}") from error
    for name, form, conversion in fields:
        known = name in ("chunk_index", "file_index", "video_key")
        if not known or conversion or not _NUMBER.fullmatch(form or ""):
            raise Inconsistent(
                f"info.json has the path template {template!r}; allowed in braces are video_key, "
                "chunk_index and file_index, the numbers plain or as in {file_index:03d}"
            )
