"""What is said about data sets that are incomplete, unfinished or contradict themselves."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**info, **changes}), encoding="utf-8")


def edit_table(path: Path, change: Callable[[dict[str, list[Any]]], object]) -> None:
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


def test_a_folder_without_metadata_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"info\.json is missing"):
        LeRobotDataset(tmp_path)


@pytest.mark.parametrize("version", ["v2.1", "v2.0", None, 3])
def test_other_versions_are_refused_by_name(copied: Write, version: object) -> None:
    root = copied("v30_av1")
    edit_info(root, codebase_version=version, features=None)

    with pytest.raises(UnsupportedVersion, match=f"codebase_version {version!r}; only v3.x"):
        LeRobotDataset(root)


def test_metadata_that_is_no_metadata_is_refused(copied: Write) -> None:
    root = copied("v30_av1")
    edit_info(root, fps=0)
    with pytest.raises(Inconsistent, match="fps"):
        LeRobotDataset(root)
    edit_info(root, fps=10, data_path="../{chunk_index}/{file_index}.parquet")
    with pytest.raises(Inconsistent, match="leads out of the data set's folder"):
        LeRobotDataset(root)
    edit_info(root, data_path="{chunk}.parquet")
    with pytest.raises(Inconsistent, match=r"path template '\{chunk\}\.parquet'"):
        LeRobotDataset(root)
    edit_info(root, total_frames=70, data_path="{chunk_index}")
    with pytest.raises(Inconsistent, match=r"5 episodes of 69 frames together; .* says 5 and 70"):
        LeRobotDataset(root)
    (root / "meta/info.json").write_text("{")
    with pytest.raises(Inconsistent, match="is not JSON"):
        LeRobotDataset(root)


@pytest.mark.parametrize(
    "template",
    [
        "{chunk_index:300000000d}",
        "{chunk_index:0100d}",
        "{chunk_index:5d}",
        "{chunk_index:_>999999d}",
        "{chunk_index:.9f}",
        "{chunk_index:{file_index}d}",
        "{chunk_index!r}",
        "{chunk_index.real}",
        "{video_key[0]}",
        "{}",
        "{chunk_index",
    ],
)
@pytest.mark.parametrize("key", ["data_path", "video_path"])
def test_templates_with_other_formats_are_refused(copied: Write, key: str, template: str) -> None:
    root = copied("v30_av1")
    edit_info(root, **{key: template})

    with pytest.raises(Inconsistent, match=r"info\.json has the path template"):
        LeRobotDataset(root)


@pytest.mark.parametrize("form", ["", ":d", ":0d", ":03d"])
def test_numbers_in_templates_are_plain_or_padded_with_zeros(copied: Write, form: str) -> None:
    root = copied("v30_av1")
    edit_info(root, data_path=f"data/chunk-{{chunk_index{form}}}.parquet")

    path = LeRobotDataset(root).episodes[0].data_path

    assert path.name == f"chunk-{'000' if form == ':03d' else '0'}.parquet"


def test_a_film_of_another_size_than_declared_is_refused(copied: Write) -> None:
    root = copied("v30_av1")
    features = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))["features"]
    features[FRONT]["shape"] = [96, 128, 3]
    edit_info(root, features=features)
    dataset = LeRobotDataset(root)
    words = r"file-000\.mp4 has frames of 64×64 pixels .* the data set declares 96×128"

    with pytest.raises(VideoError, match=words):
        dataset.read_frames(0, FRONT)
    with pytest.raises(VideoError, match=words):
        next(dataset.iter_episodes(FRONT))


def test_an_unfinished_recording_is_recognised(copied: Write) -> None:
    root = copied("v30_av1")
    data = root / "data/chunk-000/file-000.parquet"
    data.write_bytes(data.read_bytes()[:-100])

    with pytest.raises(DataError, match=r"file-000\.parquet is no finished.*finalize\(\)"):
        LeRobotDataset(root).read_columns(0)


def test_missing_files_are_named_when_they_are_needed(copied: Write) -> None:
    root = copied("v30_h264_multifile")
    (root / "data/chunk-001/file-000.parquet").unlink()
    (root / f"videos/{FRONT}/chunk-000/file-001.mp4").unlink()
    dataset = LeRobotDataset(root)

    dataset.read_columns(3)
    dataset.read_frames(3, FRONT)
    with pytest.raises(MissingFile, match=r"data/chunk-001/file-000\.parquet is missing"):
        dataset.read_columns(4)
    with pytest.raises(MissingFile, match=r"front/chunk-000/file-001\.mp4 is missing"):
        dataset.read_frames(4, FRONT)
    with pytest.raises(MissingFile):
        list(dataset.iter_episodes(FRONT))
    (root / "meta/tasks.parquet").unlink()
    with pytest.raises(MissingFile, match=r"tasks\.parquet"):
        LeRobotDataset(root)


def test_rows_that_are_not_the_episodes_are_noticed(copied: Write) -> None:
    root = copied("v30_h264_multifile")
    first, second = (root / f"data/chunk-000/file-00{n}.parquet" for n in (0, 1))
    whole = first.read_bytes()

    pq.write_table(pq.read_table(first).slice(0, 18), first)
    with pytest.raises(Inconsistent, match=r"has 18 rows; meta/episodes puts 19 there"):
        LeRobotDataset(root).read_columns(0)
    pq.write_table(pq.read_table(io.BytesIO(whole)).take([1, 0, *range(2, 19)]), first)
    with pytest.raises(Inconsistent, match=r"row 0 has index 1; .* frame 0 of episode 0"):
        LeRobotDataset(root).read_columns(0)
    first.write_bytes(whole)
    edit_table(second, lambda columns: columns["episode_index"].__setitem__(30, 9))
    with pytest.raises(Inconsistent, match="row 30 has episode_index 9"):
        LeRobotDataset(root).read_columns(3)
    edit_table(second, lambda columns: columns.pop("action"))
    with pytest.raises(Inconsistent, match=r"lacks the columns \['action'\]"):
        LeRobotDataset(root).read_columns(3)


def test_episodes_that_leave_gaps_are_noticed(write_dataset: Write) -> None:
    root = write_dataset((3, 4))
    table = root / "meta/episodes/chunk-000/file-000.parquet"
    edit_table(table, lambda columns: columns["dataset_from_index"].__setitem__(1, 4))

    with pytest.raises(Inconsistent, match="episode 1 has frames 4 to 7 and length 4; expected"):
        LeRobotDataset(root)


def test_films_that_overlap_are_noticed(one_frame_first: Path) -> None:
    table = one_frame_first / "meta/episodes/chunk-000/file-000.parquet"
    edit_table(table, lambda columns: columns["videos/camera/from_timestamp"].__setitem__(2, 0.5))

    with pytest.raises(Inconsistent, match="episode 2 begins before"):
        list(LeRobotDataset(one_frame_first).iter_episodes("camera"))


def test_frames_beyond_the_film_are_noticed(one_frame_first: Path) -> None:
    table = one_frame_first / "meta/episodes/chunk-000/file-000.parquet"
    edit_table(table, lambda columns: columns["videos/camera/from_timestamp"].__setitem__(2, 0.9))
    dataset = LeRobotDataset(one_frame_first)

    with pytest.raises(VideoError, match=r"no frame within half a frame of 1\.600 s"):
        list(dataset.iter_episodes("camera"))
    with pytest.raises(VideoError, match=r"1\.600 s \(position 16 at 10 frames/s\)"):
        dataset.read_frames(2, "camera")
    assert len(dataset.read_frames(1, "camera")) == 6
