"""The gate: every field and every frame of two data sets equals what lerobot itself returned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tectum_train.data import LeRobotDataset

SETS = ("v30_av1", "v30_h264_multifile")
CAMERAS = ("observation.images.front", "observation.images.wrist")
LENGTHS = (7, 12, 30, 1, 19)
SCALARS = ("index", "episode_index", "frame_index", "task_index", "timestamp", "next.success")
GREY_LEVELS = 3
"""What another build of ffmpeg may decode differently."""

ReadIds = Callable[[NDArray[np.uint8]], NDArray[np.int64]]


@pytest.fixture(params=SETS)
def root(request: pytest.FixtureRequest, fixtures: Path) -> Path:
    path: Path = fixtures / request.param
    return path


@pytest.fixture
def dataset(root: Path) -> LeRobotDataset:
    return LeRobotDataset(root)


@pytest.fixture
def expected(root: Path) -> dict[str, NDArray[Any]]:
    with np.load(root / "expected.npz", allow_pickle=False) as file:
        return dict(file)


def assert_same_frames(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= GREY_LEVELS


def test_the_metadata_is_what_was_recorded(
    dataset: LeRobotDataset, expected: dict[str, NDArray[Any]]
) -> None:
    assert len(dataset) == len(expected["index"]) == 69
    assert dataset.info.codebase_version == expected["codebase_version"]
    assert dataset.info.fps == expected["fps"] == 10
    assert dataset.info.robot_type == "drawn"
    assert dataset.cameras == expected["cameras"].tolist() == list(CAMERAS)
    assert [episode.length for episode in dataset.episodes] == list(LENGTHS)
    assert dataset.tasks[0] == "Pick up the red cube"
    assert dataset.tasks[1] == "Schiebe den grünen Würfel über die Öffnung — 把积木放好"
    assert set(dataset.episodes[2].tasks) == {dataset.tasks[0], dataset.tasks[2]}
    assert not dataset.episodes[3].videos.keys() ^ set(CAMERAS)


def test_every_field_of_every_frame_is_equal(
    dataset: LeRobotDataset, expected: dict[str, NDArray[Any]]
) -> None:
    rows = [dataset.read_columns(number) for number in range(len(dataset.episodes))]

    for name in (*SCALARS, "observation.state", "action"):
        found = np.concatenate([columns[name] for columns in rows])
        assert found.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(found, expected[name], err_msg=name)
    texts = [dataset.tasks[index] for columns in rows for index in columns["task_index"]]
    assert texts == expected["task"].tolist()
    assert set(rows[0]) == {*SCALARS, "observation.state", "action"}


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_frame_of_every_episode_is_the_right_one(
    dataset: LeRobotDataset,
    expected: dict[str, NDArray[Any]],
    corner_ids: ReadIds,
    camera: str,
) -> None:
    frames = [dataset.read_frames(episode.index, camera) for episode in dataset.episodes]

    assert [len(one) for one in frames] == list(LENGTHS)
    together = np.concatenate(frames)
    np.testing.assert_array_equal(corner_ids(together), expected[f"recorded_id/{camera}"])
    np.testing.assert_array_equal(corner_ids(together), expected[f"corner_id/{camera}"])
    assert_same_frames(together, expected[f"frames/{camera}"])


@pytest.mark.parametrize("camera", CAMERAS)
def test_frames_asked_for_one_by_one_and_backwards_are_the_right_ones(
    dataset: LeRobotDataset, expected: dict[str, NDArray[Any]], camera: str
) -> None:
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()

    for index in [*reversed(range(len(dataset))), *order]:
        episode = dataset.episode_of(index)
        frame = dataset.read_frames(episode.index, camera, [index - episode.dataset_from_index])
        assert_same_frames(frame, expected[f"frames/{camera}"][index : index + 1])


@pytest.mark.parametrize("block", [1, 5, 64])
@pytest.mark.parametrize("camera", CAMERAS)
def test_one_pass_over_the_files_meets_every_frame_once(
    dataset: LeRobotDataset, expected: dict[str, NDArray[Any]], camera: str, block: int
) -> None:
    met = np.zeros(len(dataset), int)

    for one in dataset.iter_episodes(camera, block=block):
        assert 1 <= len(one.frames) <= block
        assert one.start + len(one.frames) <= one.episode.length
        indices = slice(one.first_index, one.first_index + len(one.frames))
        met[indices] += 1
        assert_same_frames(one.frames, expected[f"frames/{camera}"][indices])

    assert (met == 1).all()


def test_windows_and_their_padding_are_equal(
    dataset: LeRobotDataset, expected: dict[str, NDArray[Any]], corner_ids: ReadIds
) -> None:
    prefix = "delta/timestamps/"
    offsets = {
        name.removeprefix(prefix): times.tolist()
        for name, times in expected.items()
        if name.startswith(prefix)
    }
    assert set(offsets) == {CAMERAS[0], "action"}

    for row, index in enumerate(expected["delta/index"].tolist()):
        window = dataset.window(index, offsets)

        assert set(window) == {key + end for key in offsets for end in ("", "_is_pad")}
        for key in offsets:
            padded = window[f"{key}_is_pad"]
            assert padded.dtype == np.bool_
            np.testing.assert_array_equal(padded, expected[f"delta/{key}_is_pad"][row])
        np.testing.assert_array_equal(window["action"], expected["delta/action"][row])
        assert_same_frames(window[CAMERAS[0]], expected[f"delta/{CAMERAS[0]}"][row])
        np.testing.assert_array_equal(
            corner_ids(window[CAMERAS[0]]), expected[f"delta/corner_id/{CAMERAS[0]}"][row]
        )
