"""Data sets to read: those lerobot wrote, and small ones written here with other oddities."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

FIXTURES = Path(__file__).parents[2] / "fixtures" / "lerobot"
FPS = 10


@pytest.fixture
def fixtures() -> Path:
    """The folder of data sets that lerobot wrote."""
    return FIXTURES


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Copy one of them to where it may be damaged."""

    def copy(name: str) -> Path:
        target = tmp_path / name
        shutil.copytree(FIXTURES / name, target)
        return target

    return copy


@pytest.fixture
def corner_ids() -> Callable[[NDArray[np.uint8]], NDArray[np.int64]]:
    """Read the number drawn into each frame: uint8[n, 64, 64, 3] → int64[n]."""

    def read(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
        blocks = frames[:, :16, :64].reshape(-1, 2, 8, 8, 8, 3)[:, :, 2:6, :, 2:6]
        bits = blocks.mean(axis=(2, 4, 5)).reshape(-1, 16) > 127
        return np.asarray(bits @ (1 << np.arange(15, -1, -1)), np.int64)

    return read


def write_columns(
    root: Path,
    lengths: Sequence[int],
    columns: Mapping[str, "pa.Array[Any]"],
    features: Mapping[str, Mapping[str, Any]],
    videos: Mapping[str, Sequence[float]],
) -> Path:
    """Write a data set of one data file; `videos` has each camera's from_timestamps."""
    total, episodes = sum(lengths), len(lengths)
    ends = np.cumsum(lengths)
    episode_index = np.repeat(np.arange(episodes), lengths)
    frame_index = np.arange(total) - np.repeat(ends - lengths, lengths)
    scalars = {
        "index": np.arange(total),
        "episode_index": episode_index,
        "frame_index": frame_index,
        "task_index": episode_index % 2,
    }
    described: dict[str, Any] = {
        name: {"dtype": "int64", "shape": [1], "names": None} for name in scalars
    }
    described |= {name: {"names": None, **feature} for name, feature in features.items()}
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": described,
        "total_episodes": episodes,
        "total_frames": total,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "a_key_of_the_future": {"ignored": True},
    }
    table: dict[str, Any] = {
        "episode_index": list(range(episodes)),
        "length": list(lengths),
        "tasks": [[f"task {number % 2}"] for number in range(episodes)],
        "dataset_from_index": (ends - lengths).tolist(),
        "dataset_to_index": ends.tolist(),
        "data/chunk_index": [0] * episodes,
        "data/file_index": [7] * episodes,
    }
    for camera, starts in videos.items():
        table[f"videos/{camera}/chunk_index"] = [0] * episodes
        table[f"videos/{camera}/file_index"] = [3] * episodes
        table[f"videos/{camera}/from_timestamp"] = list(starts)
        stops = [start + length / FPS for start, length in zip(starts, lengths, strict=True)]
        table[f"videos/{camera}/to_timestamp"] = stops
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table(table), root / "meta/episodes/chunk-000/file-000.parquet")
    tasks = {"task_index": [1, 0], "task": ["task 1", "task 0"]}
    pq.write_table(pa.table(tasks), root / "meta/tasks.parquet")
    data = {name: pa.array(values) for name, values in scalars.items()} | dict(columns)
    pq.write_table(pa.table(data), root / "data/chunk-000/file-007.parquet", row_group_size=5)
    return root


@pytest.fixture
def write_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Write a data set: `write_columns` without its first argument and with empty defaults."""

    def write(
        lengths: Sequence[int],
        columns: Mapping[str, "pa.Array[Any]"] | None = None,
        features: Mapping[str, Mapping[str, Any]] | None = None,
        videos: Mapping[str, Sequence[float]] | None = None,
    ) -> Path:
        root = tmp_path / "written"
        return write_columns(root, lengths, columns or {}, features or {}, videos or {})

    return write


@pytest.fixture
def one_frame_first(write_dataset: Callable[..., Path]) -> Path:
    """Make a data set of 1, 6 and 9 frames over the film in which seeking goes astray."""
    camera = {"camera": {"dtype": "video", "shape": [64, 64, 3]}}
    # Running sums of durations, as lerobot's: a little short of the frame they mean.
    starts = (0.0, 0.0999996, 0.6999983)
    root = write_dataset((1, 6, 9), features=camera, videos={"camera": starts})
    film = root / "videos/camera/chunk-000/file-003.mp4"
    film.parent.mkdir(parents=True)
    shutil.copy(FIXTURES / "one_frame_first.mp4", film)
    return root


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Encode grey frames; frame n has level 40 + 8·n, at time n / FPS unless told otherwise."""

    def encode(count: int, *, name: str = "film.mp4", ticks: Sequence[int] | None = None) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            options = {"g": "12", "bf": "3", "crf": "1"}
            stream = container.add_stream("libx264", rate=100, options=options)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for number in range(count):
                level = np.full((32, 32, 3), 40 + 8 * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(level, "rgb24")
                frame.pts = 10 * number if ticks is None else ticks[number]  # hundredths
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return encode
