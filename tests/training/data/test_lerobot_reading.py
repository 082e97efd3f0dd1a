"""Columns of every shape, stored pictures, windows, awkward films and worker processes."""

import io
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import tectum_train.data
from tectum_train.data import (
    DataError,
    Inconsistent,
    LeRobotDataset,
    MissingFile,
    UnsupportedVersion,
    VideoError,
)

FRONT = "observation.images.front"
Write = Callable[..., Path]
ReadIds = Callable[[NDArray[np.uint8]], NDArray[np.int64]]


def edit_table(path: Path, change: Callable[[dict[str, list[Any]]], object]) -> None:
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


# ---------------------------------------------------------------- columns


def test_columns_of_every_shape_and_layout_come_back(write_dataset: Write) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(9, 3)).astype(np.float32)
    grids = random.integers(0, 99, (9, 2, 4))
    root = write_dataset(
        (4, 5),
        columns={
            "fixed": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 3),
            "plain": pa.array(vectors.tolist(), pa.list_(pa.float32())),
            "nested": pa.array(grids.tolist(), pa.list_(pa.list_(pa.int64()))),
            "single": pa.array([[float(n)] for n in range(9)], pa.list_(pa.float64())),
            "flag": pa.array([n % 2 == 0 for n in range(9)]),
            "word": pa.array([f"wörd {n}" for n in range(9)]),
            "events": pa.array([[{"t": 1.0, "text": "x"}]] * 9),
        },
        features={
            "fixed": {"dtype": "float32", "shape": [3]},
            "plain": {"dtype": "float32", "shape": [3]},
            "nested": {"dtype": "int64", "shape": [2, 4]},
            "single": {"dtype": "float32", "shape": [1]},
            "flag": {"dtype": "bool", "shape": [1]},
            "word": {"dtype": "string", "shape": [1]},
            "events": {"dtype": "language", "shape": [1]},
        },
    )

    columns = LeRobotDataset(root).read_columns(1)

    np.testing.assert_array_equal(columns["fixed"], vectors[4:])
    np.testing.assert_array_equal(columns["plain"], vectors[4:])
    np.testing.assert_array_equal(columns["nested"], grids[4:])
    np.testing.assert_array_equal(columns["single"], np.arange(4, 9, dtype=np.float32))
    assert columns["single"].dtype == np.float32
    assert columns["flag"].tolist() == [True, False, True, False, True]
    assert columns["word"].tolist() == [f"wörd {n}" for n in range(4, 9)]
    assert "events" not in columns
    assert columns["fixed"].flags.writeable


def test_the_tasks_are_ordered_by_their_index_not_by_their_row(write_dataset: Write) -> None:
    assert LeRobotDataset(write_dataset((2, 2))).tasks == ["task 0", "task 1"]


def test_pictures_stored_in_the_rows_are_decoded(write_dataset: Write) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (7, 12, 16, 3), np.uint8)
    stored = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        stored.append({"bytes": file.getvalue(), "path": None})
    feature = {"dtype": "image", "shape": [12, 16, 3], "names": ["height", "width", "channels"]}
    root = write_dataset((3, 4), columns={"eye": pa.array(stored)}, features={"eye": feature})
    dataset = LeRobotDataset(root)

    assert dataset.cameras == ["eye"]
    np.testing.assert_array_equal(dataset.read_columns(1)["eye"], pictures[3:])
    np.testing.assert_array_equal(dataset.read_frames(1, "eye", [2, 0, 2]), pictures[[5, 3, 5]])
    np.testing.assert_array_equal(dataset.window(4, {"eye": [-0.2]})["eye"], pictures[3:4])
    blocks = [block.frames for block in dataset.iter_episodes("eye", block=2)]
    assert [len(frames) for frames in blocks] == [2, 1, 2, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), pictures)


def test_a_stored_picture_that_is_damaged_or_absent_is_named(write_dataset: Write) -> None:
    stored = [{"bytes": b"\x89PNG\r\n\x1a\n", "path": None}, {"bytes": None, "path": "x.png"}]
    stored.append({"bytes": b"GIF89a", "path": None})
    feature = {"dtype": "image", "shape": [3, 12, 16]}  # channels first
    root = write_dataset((3,), columns={"eye": pa.array(stored)}, features={"eye": feature})
    dataset = LeRobotDataset(root)

    assert dataset.read_frames(0, "eye", []).shape == (0, 12, 16, 3)
    with pytest.raises(DataError, match="'eye', frame 0 of episode 0: the PNG"):
        dataset.read_frames(0, "eye", [0])
    with pytest.raises(Inconsistent, match="frame 1 of episode 0: the row has no picture"):
        dataset.read_frames(0, "eye", [1])
    with pytest.raises(DataError, match="frame 2 of episode 0: the image is GIF"):
        dataset.read_frames(0, "eye", [2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]]), r"shape \(2,\)"),
        (pa.array([[1.0, 2.0], [None, 2.0], [1.0, 2.0]]), "1 nulls"),
        (pa.array([[1.0, 2.0], None, [1.0, 2.0]]), "1 nulls"),
        (pa.array([[1.0] * 3] * 3), "holds 9 values in 3 rows"),
    ],
)
def test_columns_that_are_not_of_their_shape_are_refused(
    write_dataset: Write, values: "pa.Array[Any]", message: str
) -> None:
    feature = {"dtype": "float64", "shape": [2]}
    root = write_dataset((3,), columns={"pair": values}, features={"pair": feature})

    with pytest.raises(Inconsistent, match=message):
        LeRobotDataset(root).read_columns(0)


# ---------------------------------------------------------------- windows


@given(
    index=st.integers(0, 68),
    steps=st.lists(st.integers(-40, 40), min_size=1, max_size=5),
    error=st.floats(-0.9e-4, 0.9e-4),
)
def test_a_window_is_its_frames_clamped_to_the_episode(
    index: int, steps: list[int], error: float
) -> None:
    dataset = WHOLE
    episode = dataset.episode_of(index)
    exact = index + np.array(steps)

    window = dataset.window(index, {"index": [step / 10 + error for step in steps]})

    inside = exact.clip(episode.dataset_from_index, episode.dataset_to_index - 1)
    assert window["index"].tolist() == inside.tolist()
    assert window["index_is_pad"].tolist() == (exact != inside).tolist()


WHOLE = LeRobotDataset(Path(__file__).parents[2] / "fixtures/lerobot/v30_av1")


@pytest.mark.parametrize("offset", [0.05, 0.1002, -0.0999 + 2e-4, float("nan"), float("inf")])
def test_an_offset_between_frames_is_refused_by_name_and_value(offset: float) -> None:
    with pytest.raises(ValueError, match=f"'action'.*{offset}"):
        WHOLE.window(3, {"action": [0.0, offset]})


def test_what_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(DataError, match=r"no camera 'top'.*images\.front, observation\.images\.wr"):
        WHOLE.read_frames(0, "top")
    with pytest.raises(
        DataError, match=r"no feature 'speed'.*there are observation\.state, action"
    ):
        WHOLE.window(0, {"speed": [0.0]})
    with pytest.raises(IndexError, match="frame 69; the data set has frames 0 to 68"):
        WHOLE.window(69, {})
    with pytest.raises(IndexError, match="frame 7; episode 0 has 0 to 6"):
        WHOLE.read_frames(0, FRONT, [0, 7])
    with pytest.raises(IndexError, match="frame -1"):
        WHOLE.read_frames(0, FRONT, [-1])
    with pytest.raises(IndexError, match="episode 5; the data set has episodes 0 to 4"):
        WHOLE.read_columns(5)


# ---------------------------------------------------------------- films in which seeking fails


def test_a_one_frame_episode_at_the_start_of_a_shared_film_is_read(
    one_frame_first: Path, corner_ids: ReadIds
) -> None:
    dataset = LeRobotDataset(one_frame_first)
    expected = [clip << 8 | frame for clip, n in enumerate((1, 6, 9)) for frame in range(n)]

    in_order = [corner_ids(block.frames) for block in dataset.iter_episodes("camera")]
    assert np.concatenate(in_order).tolist() == expected
    whole = [corner_ids(dataset.read_frames(episode, "camera")) for episode in (2, 0, 1)]
    assert np.concatenate([whole[1], whole[2], whole[0]]).tolist() == expected
    for index in (15, 0, 3, 1, 8, 0, 14, 2, *range(15, -1, -1)):
        window = dataset.window(index, {"camera": [0.0]})
        assert corner_ids(window["camera"]).tolist() == [expected[index]]


def ids_of_first_frames(dataset: LeRobotDataset) -> list[int]:
    frames = [dataset.read_frames(number, FRONT, [0])[0] for number in range(5)]
    return [int(frame.sum()) for frame in frames]


def send_ids(dataset: LeRobotDataset, answers: Any) -> None:
    answers.put(ids_of_first_frames(dataset))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_may_be_given_a_data_set_in_use(fixtures: Path, method: Any) -> None:
    # Forked workers get it with its films open, spawned ones get it pickled.
    dataset = LeRobotDataset(fixtures / "v30_h264_multifile")
    expected = ids_of_first_frames(dataset)
    open_films = dict(dataset._videos._readers)
    context = multiprocessing.get_context(method)
    answers = context.Queue()

    workers = [
        context.Process(target=send_ids, args=(dataset, answers), daemon=True) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [ids_of_first_frames(dataset), *(answers.get(timeout=60) for _ in workers)]
    for worker in workers:
        worker.join()

    assert found == [expected] * 4
    assert open_films
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_a_pickled_data_set_leaves_its_open_films_behind(fixtures: Path) -> None:
    dataset = LeRobotDataset(fixtures / "v30_av1")
    expected = dataset.window(30, {FRONT: [0.0], "action": [0.0]})

    again = pickle.loads(pickle.dumps(dataset))

    for key, values in again.window(30, {FRONT: [0.0], "action": [0.0]}).items():
        np.testing.assert_array_equal(values, expected[key])


def test_a_merged_file_of_one_row_group_reads_the_same(copied: Write) -> None:
    root = copied("v30_av1")
    before = LeRobotDataset(root).read_columns(2)
    data = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(data)
    plain = {name: pa.array(table[name].to_pylist()) for name in ("observation.state", "action")}
    for name, values in plain.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    moved = data.with_name("file-123.parquet")
    pq.write_table(table, moved)
    data.unlink()
    episodes = root / "meta/episodes/chunk-000/file-000.parquet"
    edit_table(episodes, lambda columns: columns.update({"data/file_index": [123] * 5}))

    after = LeRobotDataset(root).read_columns(2)

    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_the_public_names_exist() -> None:
    assert sorted(tectum_train.data.__all__) == tectum_train.data.__all__
    assert all(hasattr(tectum_train.data, name) for name in tectum_train.data.__all__)
    assert set(DataError.__subclasses__()) == {
        Inconsistent, MissingFile, UnsupportedVersion, VideoError,
    }  # fmt: skip


def test_reading_never_imports_torch() -> None:
    script = "import sys, tectum_train.data; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
