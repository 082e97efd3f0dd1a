"""The recorder: LeRobot's layout, and every row and picture comes back."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tabletop.recorder import Recorder
from tabletop.summaries import STATISTICS
from tabletop.tables import Feature, Place
from tabletop.video import Encoding, encode

CAMERA = "observation.images.front"
RATE = 80
SIZE = 32
FEATURES = {
    "observation.state": Feature("float32", (4,), ("x", "y", "z", "grip")),
    "action": Feature("float32", (4,)),
    "next.success": Feature("bool", (1,)),
    "layout": Feature("int64", (1,)),
    CAMERA: Feature("video", (SIZE, SIZE, 3), ("height", "width", "channels")),
}
OWN = ["timestamp", "frame_index", "episode_index", "index", "task_index"]


def episode(length: int, number: int = 0) -> dict[str, NDArray[Any]]:
    """Numbers that name their row, and pictures that show it: one grey level per frame."""
    random = np.random.default_rng(number)
    level = (40 + 5 * np.arange(length) + 50 * number) % 256
    return {
        "observation.state": random.normal(size=(length, 4)).astype(np.float32),
        "action": random.uniform(-1, 1, (length, 4)).astype(np.float32),
        "next.success": np.arange(length) >= length - 2,
        "layout": np.full(length, number),
        CAMERA: np.broadcast_to(
            level[:, None, None, None].astype(np.uint8), (length, SIZE, SIZE, 3)
        ).copy(),
    }


def record(root: Path, episodes: list[dict[str, NDArray[Any]]], **options: Any) -> Path:
    with Recorder(root, rate=RATE, features=FEATURES, robot_type="drawn", **options) as recorder:
        for number, columns in enumerate(episodes):
            recorder.add_episode(columns, f"task {number % 2}")
    return root


def pictures(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_column_of_two_episodes_comes_back(tmp_path: Path) -> None:
    made = [episode(7, 0), episode(12, 1)]

    root = record(tmp_path / "set", made)

    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert table.column_names == [name for name in FEATURES if name != CAMERA] + OWN
    for name in ("observation.state", "action", "next.success", "layout"):
        expected = np.concatenate([columns[name] for columns in made])
        assert np.array_equal(np.array(table.column(name).to_pylist()), expected), name
    assert table.column("index").to_pylist() == list(range(19))
    assert table.column("frame_index").to_pylist() == [*range(7), *range(12)]
    assert table.column("episode_index").to_pylist() == [0] * 7 + [1] * 12
    assert table.column("task_index").to_pylist() == [0] * 7 + [1] * 12
    seconds = np.array(table.column("timestamp").to_pylist())
    assert np.allclose(seconds, np.r_[np.arange(7), np.arange(12)] / RATE)


def test_the_decoded_picture_of_every_row_is_the_recorded_one(tmp_path: Path) -> None:
    made = [episode(7, 0), episode(1, 1), episode(23, 2)]

    root = record(tmp_path / "set", made)

    decoded = pictures(root / f"videos/{CAMERA}/chunk-000/file-000.mp4")
    expected = np.concatenate([columns[CAMERA] for columns in made])
    assert decoded.shape == expected.shape
    # Levels are five apart, so a row shown one frame early or late would be off by as much.
    assert np.abs(decoded.astype(int) - expected).max() <= 2


def test_films_have_exact_times_no_b_frames_and_a_key_frame_per_episode(tmp_path: Path) -> None:
    root = record(tmp_path / "set", [episode(7, 0), episode(23, 1)])

    with av.open(str(root / f"videos/{CAMERA}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
    ticks = 1 / RATE / stream.time_base
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert stream.average_rate == RATE
    assert [packet.pts for packet in packets] == [frame * ticks for frame in range(30)]
    assert all(packet.dts == packet.pts for packet in packets)
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert keys == [0, 7, 17, 27]


def test_column_types_and_row_groups_are_lerobots(tmp_path: Path) -> None:
    root = record(tmp_path / "set", [episode(7, 0), episode(12, 1)])

    file = pq.ParquetFile(root / "data/chunk-000/file-000.parquet")
    schema = file.schema_arrow
    assert schema.field("observation.state").type == pa.list_(pa.float32(), 4)
    assert schema.field("next.success").type == pa.bool_()
    assert schema.field("timestamp").type == pa.float32()
    assert schema.field("index").type == pa.int64()
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [7, 12]
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert described["observation.state"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": 4,
        "_type": "List",
    }
    assert described["next.success"] == {"dtype": "bool", "_type": "Value"}


def test_episode_metadata_has_the_columns_that_lerobot_writes(tmp_path: Path) -> None:
    root = record(tmp_path / "set", [episode(7, 0), episode(12, 1)])

    table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
    # Names and order as in a set recorded with lerobot 0.4.4.
    expected = [
        "episode_index",
        "tasks",
        "length",
        "data/chunk_index",
        "data/file_index",
        "dataset_from_index",
        "dataset_to_index",
        *(
            f"videos/{CAMERA}/{part}"
            for part in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        ),
        *(f"stats/{name}/{part}" for name in [*FEATURES, *OWN] for part in STATISTICS),
        "meta/episodes/chunk_index",
        "meta/episodes/file_index",
    ]
    assert table.column_names == expected
    first, second = table.to_pylist()
    assert (first["tasks"], second["tasks"]) == (["task 0"], ["task 1"])
    assert (first["length"], second["length"]) == (7, 12)
    assert (second["dataset_from_index"], second["dataset_to_index"]) == (7, 19)
    assert first[f"videos/{CAMERA}/from_timestamp"] == 0
    assert first[f"videos/{CAMERA}/to_timestamp"] == second[f"videos/{CAMERA}/from_timestamp"]
    assert second[f"videos/{CAMERA}/to_timestamp"] == 19 / RATE


def test_the_information_file_has_lerobots_keys(tmp_path: Path) -> None:
    root = record(tmp_path / "set", [episode(7, 0), episode(12, 1)])

    information = json.loads((root / "meta/info.json").read_text())
    # Keys and order as in a set recorded with lerobot 0.4.4.
    assert list(information) == [
        "codebase_version",
        "robot_type",
        "total_episodes",
        "total_frames",
        "total_tasks",
        "chunks_size",
        "data_files_size_in_mb",
        "video_files_size_in_mb",
        "fps",
        "splits",
        "data_path",
        "video_path",
        "features",
    ]
    assert information["codebase_version"] == "v3.0"
    assert (information["total_episodes"], information["total_frames"]) == (2, 19)
    assert information["splits"] == {"train": "0:2"}
    assert list(information["features"]) == [*FEATURES, *OWN]
    assert information["features"][CAMERA] == {
        "dtype": "video",
        "shape": [SIZE, SIZE, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": SIZE,
            "video.width": SIZE,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": RATE,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def test_tasks_are_the_nameless_index_of_a_pandas_frame(tmp_path: Path) -> None:
    root = record(tmp_path / "set", [episode(3, n) for n in range(3)])

    table = pq.read_table(root / "meta/tasks.parquet")
    assert table.to_pylist() == [
        {"task_index": 0, "__index_level_0__": "task 0"},
        {"task_index": 1, "__index_level_0__": "task 1"},
    ]
    note = json.loads(table.schema.metadata[b"pandas"])
    assert note["index_columns"] == ["__index_level_0__"]


def test_statistics_are_those_of_the_recorded_values(tmp_path: Path) -> None:
    made = [episode(7, 0), episode(12, 1)]

    root = record(tmp_path / "set", made)

    statistics = json.loads((root / "meta/stats.json").read_text())
    states = np.concatenate([columns["observation.state"] for columns in made]).astype(float)
    levels = np.concatenate([columns[CAMERA] for columns in made]) / 255
    assert list(statistics) == [*FEATURES, *OWN]
    assert np.allclose(statistics["observation.state"]["mean"], states.mean(0))
    assert np.allclose(statistics["observation.state"]["std"], states.std(0))
    assert np.allclose(statistics["observation.state"]["q90"], np.quantile(states, 0.9, axis=0))
    assert statistics["index"]["max"] == [18]
    assert statistics["next.success"]["min"] == [False]
    assert np.allclose(statistics[CAMERA]["mean"], levels.mean())
    assert np.allclose(statistics[CAMERA]["std"], levels.std())
    assert np.allclose(statistics[CAMERA]["max"], levels.max())
    assert np.array(statistics[CAMERA]["min"]).shape == (3, 1, 1)
    assert statistics[CAMERA]["count"] == [19]


def test_files_start_anew_above_the_size_limits(tmp_path: Path) -> None:
    made = [episode(30, n) for n in range(6)]
    film = len(encode(made[0][CAMERA], RATE, Encoding())) / 1024**2

    root = record(
        tmp_path / "set",
        made,
        chunks_size=2,
        data_file_megabytes=0.012,
        video_file_megabytes=2.5 * film,
    )

    rows = pq.read_table(root / "meta/episodes").to_pylist()
    places = [(r[f"videos/{CAMERA}/chunk_index"], r[f"videos/{CAMERA}/file_index"]) for r in rows]
    assert places == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0)]
    assert [r[f"videos/{CAMERA}/from_timestamp"] for r in rows] == [0, 30 / RATE] * 3
    assert len(list((root / "data").rglob("*.parquet"))) > 1
    for row, columns in zip(rows, made, strict=True):
        data = root / "data/chunk-{data/chunk_index:03d}/file-{data/file_index:03d}.parquet".format(
            **row
        )
        kept = pq.read_table(data, filters=[("episode_index", "=", row["episode_index"])])
        assert kept.column("layout").to_pylist() == columns["layout"].tolist()
        path = (
            root
            / "videos"
            / CAMERA
            / "chunk-{:03d}/file-{:03d}.mp4".format(
                row[f"videos/{CAMERA}/chunk_index"], row[f"videos/{CAMERA}/file_index"]
            )
        )
        begin = round(row[f"videos/{CAMERA}/from_timestamp"] * RATE)
        shown = pictures(path)[begin : begin + 30]
        assert np.abs(shown.astype(int) - columns[CAMERA]).max() <= 2
        assert path.stat().st_size <= 2.5 * film * 1024**2


def test_files_are_numbered_within_chunks() -> None:
    place = Place()

    numbers = [(place := place.next(2)) for _ in range(3)]

    assert numbers == [Place(0, 1), Place(1, 0), Place(1, 1)]


def test_an_error_while_recording_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "set"

    def interrupted() -> None:
        with Recorder(root, rate=RATE, features=FEATURES, robot_type="drawn") as recorder:
            recorder.add_episode(episode(4), "task")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert not root.exists()


def test_a_set_without_episodes_is_refused_and_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no episode"):
        record(tmp_path / "set", [])

    assert not (tmp_path / "set").exists()


def test_a_folder_that_exists_is_never_written_into(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        record(tmp_path, [episode(3)])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"action": np.zeros((5, 3), np.float32)}, r"'action' has shape \(3,\); expected \(4,\)"),
        ({"action": np.zeros((4, 4), np.float32)}, "rows; expected one number"),
        ({"surprise": np.zeros(5)}, "surprise.*expected"),
        ({CAMERA: np.zeros((5, SIZE, SIZE, 3), np.float32)}, "float32; pictures are uint8"),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_what_was_found(
    tmp_path: Path, change: dict[str, NDArray[Any]], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        record(tmp_path / "set", [episode(5) | change])


def test_odd_picture_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="33×32; yuv420p needs even sides"):
        encode(np.zeros((2, 32, 33, 3), np.uint8), RATE, Encoding())


def test_lerobots_own_columns_cannot_be_recorded(tmp_path: Path) -> None:
    features = {**FEATURES, "timestamp": Feature("float32", (1,))}

    with pytest.raises(ValueError, match=r"timestamp.*LeRobot's own"):
        Recorder(tmp_path / "set", rate=RATE, features=features, robot_type="drawn")
