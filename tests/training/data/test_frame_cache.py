"""The cache: right values, built once, never half."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tectum_train.data import FrameCache, Inconsistent, LeRobotDataset, MissingFile

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
SETS = ("v30_av1", "v30_h264_multifile")


def halve(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average 2×2 pixels: 64 → 32."""
    sums = frames.reshape(len(frames), 32, 2, 32, 2, 3).astype(np.uint16).sum(axis=(2, 4))
    return np.asarray(sums // 4, np.uint8)


class Counting:
    """A resize that counts the frames it was given."""

    def __init__(self) -> None:
        self.frames = 0
        self.largest = 0

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Halve, and count."""
        self.frames += len(frames)
        self.largest = max(self.largest, len(frames))
        return halve(frames)


def build(
    dataset: LeRobotDataset,
    folder: Path,
    resize: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = halve,
    camera: str = FRONT,
    identity: str = "halve 1",
    progress: Callable[[int, int], None] | None = None,
) -> FrameCache:
    return FrameCache.open(
        dataset, camera, resize, resize_identity=identity, folder=folder, progress=progress
    )


@pytest.mark.parametrize("camera", [FRONT, WRIST])
@pytest.mark.parametrize("name", SETS)
def test_the_cache_holds_every_frame_resized_at_its_index(
    fixtures: Path, tmp_path: Path, name: str, camera: str
) -> None:
    dataset = LeRobotDataset(fixtures / name)

    cache = build(dataset, tmp_path, camera=camera)

    assert cache.frames.shape == (len(cache), 32, 32, 3) == (69, 32, 32, 3)
    assert cache.frames.dtype == np.uint8
    assert isinstance(cache.frames, np.memmap)
    for episode in dataset.episodes:
        expected = halve(dataset.read_frames(episode.index, camera))
        found = cache.frames[episode.dataset_from_index : episode.dataset_to_index]
        np.testing.assert_array_equal(found, expected)


def test_a_second_opening_decodes_nothing(
    fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = LeRobotDataset(fixtures / "v30_av1")
    resize = Counting()
    first = build(dataset, tmp_path, resize)
    assert resize.frames == 69

    monkeypatch.setattr(LeRobotDataset, "iter_episodes", None)
    second = build(LeRobotDataset(fixtures / "v30_av1"), tmp_path, resize)

    assert resize.frames == 69
    assert second.path == first.path
    np.testing.assert_array_equal(first.frames, second.frames)


def test_blocks_are_bounded_and_progress_is_told(one_frame_first: Path, tmp_path: Path) -> None:
    resize, told = Counting(), list[tuple[int, int]]()

    build(
        LeRobotDataset(one_frame_first),
        tmp_path / "cache",
        resize,
        camera="camera",
        progress=lambda done, total: told.append((done, total)),
    )

    assert resize.largest <= 64
    assert told == [(1, 16), (7, 16), (16, 16)]


@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_interrupted_build_is_not_mistaken_for_a_whole_one(
    fixtures: Path, tmp_path: Path, after: int
) -> None:
    dataset = LeRobotDataset(fixtures / "v30_av1")
    whole = build(dataset, tmp_path / "other")
    calls = 0

    def interrupted(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return halve(frames)

    folder = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        build(dataset, folder, interrupted)
    assert not (folder / whole.path.name).exists()
    assert not list(folder.glob("*/index.json"))

    resize = Counting()
    again = build(dataset, folder, resize)

    assert resize.frames == 69
    np.testing.assert_array_equal(again.frames, whole.frames)
    assert not list(folder.glob("*.partial"))


def killed_half_way(root: Path, folder: Path) -> None:
    def kill(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        os._exit(9)

    build(LeRobotDataset(root), folder, kill)


def test_a_killed_build_leaves_no_lock_behind(fixtures: Path, tmp_path: Path) -> None:
    root = fixtures / "v30_av1"
    process = multiprocessing.get_context("spawn").Process(
        target=killed_half_way, args=(root, tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert list(tmp_path.glob("*.partial"))

    assert len(build(LeRobotDataset(root), tmp_path)) == 69


def build_in_a_process(root: Path, folder: Path, counts: Path) -> None:
    resize = Counting()
    build(LeRobotDataset(root), folder, resize)
    (counts / str(os.getpid())).write_text(str(resize.frames))


def test_of_several_processes_one_builds_and_the_others_wait(
    fixtures: Path, tmp_path: Path
) -> None:
    counts = tmp_path / "counts"
    counts.mkdir()
    context = multiprocessing.get_context("spawn")
    arguments = (fixtures / "v30_av1", tmp_path / "cache", counts)
    processes = [context.Process(target=build_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert sorted(int(path.read_text()) for path in counts.iterdir()) == [0, 0, 69]


def test_anything_the_values_depend_on_makes_another_cache(
    copied: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copied("v30_av1")
    folder = tmp_path / "cache"
    video = root / f"videos/{FRONT}/chunk-000/file-000.mp4"

    paths = [build(LeRobotDataset(root), folder).path]
    paths.append(build(LeRobotDataset(root), folder, camera=WRIST).path)
    paths.append(build(LeRobotDataset(root), folder, identity="halve 2").path)
    os.utime(video, ns=(1, 1))
    paths.append(build(LeRobotDataset(root), folder).path)
    with video.open("ab") as file:
        file.write(b"\0\0\0\x08free")
    os.utime(video, ns=(1, 1))
    paths.append(build(LeRobotDataset(root), folder).path)
    info = root / "meta/info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "robot_type": "other"}))
    paths.append(build(LeRobotDataset(root), folder).path)

    assert len(set(paths)) == len(paths)


def test_a_moved_data_set_keeps_its_cache(copied: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied("v30_av1")
    first = build(LeRobotDataset(root), tmp_path / "cache")
    moved = tmp_path / "elsewhere"
    shutil.move(root, moved)

    assert build(LeRobotDataset(moved), tmp_path / "cache").path == first.path


def test_frames_that_no_file_has_take_no_memory(
    copied: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied("v30_av1")
    table = root / "meta/episodes/chunk-000/file-000.parquet"
    columns = pq.read_table(table).to_pydict()
    columns["length"][-1] += 10**12
    columns["dataset_to_index"][-1] += 10**12
    pq.write_table(pa.table(columns), table)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_frames": 10**12 + 69}))
    dataset = LeRobotDataset(root)
    monkeypatch.setattr(np, "zeros", None)

    with pytest.raises(Inconsistent, match=r"has 69 rows; meta/episodes puts 1000000000069 there"):
        build(dataset, tmp_path / "cache")


def test_the_frames_cannot_be_written_to(fixtures: Path, tmp_path: Path) -> None:
    cache = build(LeRobotDataset(fixtures / "v30_av1"), tmp_path)

    with pytest.raises(ValueError, match="read-only"):
        cache.frames[0] = 0
    assert cache.index["camera"] == FRONT
    assert (cache.index["frames"], cache.index["side"]) == (69, 32)


@pytest.mark.parametrize(
    "resize",
    [
        lambda frames: halve(frames).astype(np.float32),
        lambda frames: halve(frames)[:-1],
        lambda frames: halve(frames)[:, :16],
        lambda frames: halve(frames)[..., :2],
        lambda frames: halve(frames)[:, :-1, :-1] if len(frames) == 12 else halve(frames),
    ],
)
def test_a_resize_of_another_shape_or_type_is_refused(
    fixtures: Path,
    tmp_path: Path,
    resize: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> None:
    with pytest.raises(ValueError, match=r"resize made .* expected uint8\["):
        build(LeRobotDataset(fixtures / "v30_av1"), tmp_path, resize)


def test_a_missing_film_is_named(copied: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied("v30_av1")
    dataset = LeRobotDataset(root)
    (root / f"videos/{FRONT}/chunk-000/file-000.mp4").unlink()

    with pytest.raises(MissingFile, match=r"file-000\.mp4 is missing"):
        build(dataset, tmp_path / "cache")
