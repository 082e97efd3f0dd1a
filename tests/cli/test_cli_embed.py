"""`tectum embed`: one row each, a broken picture among them, and nothing half-written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.bundles import picture
from tests.cli.running import free_port, invoke

from tectum import Client, Embedding
from tectum_cli import embed as embedding
from tectum_cli.media import pictures_in

PICTURES = ("a.jpg", "b.png", "c.webp")


def write_film(
    path: Path, frames: int = 5, rate: int = 10, width: int = 32, height: int = 32
) -> Path:
    """A film of grey frames, each lighter than the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1"})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            grey = np.full((height, width, 3), 20 + 40 * (number % 6), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of three formats, a film, and what is neither."""
    root = tmp_path / "media"
    (root / "deeper").mkdir(parents=True)
    for seed, name in enumerate(PICTURES):
        Image.fromarray(picture(seed)).save(root / name)
    Image.fromarray(picture(9)).save(root / "deeper" / "Z.PNG")
    write_film(root / "film.mp4")
    (root / "notes.txt").write_text("no picture")
    return root


def embedded(out: Path, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    result = invoke("embed", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    return pq.read_table(out).to_pylist(), result.stderr


def refused(out: Path, *arguments: object) -> str:
    """What is said of a call that must fail, and must leave nothing behind."""
    before = sorted(out.parent.iterdir()) if out.parent.exists() else []
    result = invoke("embed", *arguments, "--out", out)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert (sorted(out.parent.iterdir()) if out.parent.exists() else []) == before
    return " ".join(result.stderr.split())


# ---------------------------------------------------------------- rows


def test_a_folder_becomes_one_row_for_each_picture_and_frame(
    worker: str, folder: Path, tmp_path: Path
) -> None:
    rows, told = embedded(tmp_path / "out.parquet", folder, "--worker", worker)

    names = [Path(row["path"]).name for row in rows]
    assert names == ["a.jpg", "b.png", "c.webp", "Z.PNG", *["film.mp4"] * 5]
    assert [row["frame"] for row in rows] == [None] * 4 + [0, 1, 2, 3, 4]
    assert [row["seconds"] for row in rows[4:]] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert all(row["error"] is None for row in rows)
    assert f"9 embedded: 9 rows in {tmp_path / 'out.parquet'}" in told
    assert "skipped 1 file that is no picture: notes.txt" in told
    assert "embedding" not in told, "a spinner is for terminals"
    assert {row["model"] for row in rows} == {"tiny"}


def test_columns_have_their_types(worker: str, folder: Path, tmp_path: Path) -> None:
    embedded(tmp_path / "out.parquet", folder / "a.jpg", "--worker", worker)

    assert pq.read_schema(tmp_path / "out.parquet") == pa.schema(
        {
            "path": pa.string(),
            "frame": pa.int64(),
            "seconds": pa.float64(),
            "vector": pa.list_(pa.float32()),
            "space_id": pa.string(),
            "model": pa.string(),
            "version": pa.string(),
            "error": pa.string(),
        }  # type: ignore[arg-type]
    )


def test_vectors_and_spaces_are_the_workers(worker: str, folder: Path, tmp_path: Path) -> None:
    rows, _ = embedded(tmp_path / "out.parquet", folder / "b.png", "--worker", worker)

    with Client(worker) as client:
        (expected,) = client.embed_images([(folder / "b.png").read_bytes()])
    assert isinstance(expected, Embedding)
    assert np.allclose(rows[0]["vector"], expected.as_float32(), atol=1e-6)
    assert rows[0]["space_id"] == expected.space_id
    assert len(rows[0]["vector"]) == 16


def test_the_kind_can_be_chosen(worker: str, folder: Path, tmp_path: Path) -> None:
    joint, pooled = (
        embedded(
            tmp_path / f"{kind}.parquet", folder / "a.jpg", "--worker", worker, "--kind", kind
        )[0][0]
        for kind in ("joint", "pooled")
    )

    assert (len(joint["vector"]), len(pooled["vector"])) == (16, 32)
    assert joint["space_id"] != pooled["space_id"]


def test_of_a_film_every_nth_frame_is_taken(worker: str, folder: Path, tmp_path: Path) -> None:
    arguments = (folder / "film.mp4", "--worker", worker, "--every", 2)

    rows, _ = embedded(tmp_path / "out.parquet", *arguments)

    assert [row["frame"] for row in rows] == [0, 2, 4]


def test_requests_of_any_size_give_the_same_rows(worker: str, folder: Path, tmp_path: Path) -> None:
    one, _ = embedded(tmp_path / "one.parquet", folder, "--worker", worker, "--batch", 1)
    four, _ = embedded(tmp_path / "four.parquet", folder, "--worker", worker, "--batch", 4)

    assert [(r["path"], r["frame"]) for r in one] == [(r["path"], r["frame"]) for r in four]
    assert np.allclose([r["vector"] for r in one], [r["vector"] for r in four], atol=1e-5)


def test_a_film_of_a_usual_size_is_embedded_in_requests_that_hold_it(
    worker: str, tmp_path: Path
) -> None:
    # 26 frames are 69 MiB, which no request may have.
    film = write_film(tmp_path / "film.mp4", frames=26, width=1280, height=720)

    rows, _ = embedded(tmp_path / "out.parquet", film, "--worker", worker)

    assert [row["frame"] for row in rows] == list(range(26))
    assert all(row["error"] is None for row in rows)


@pytest.mark.parametrize("batch", [1, 32])
def test_a_picture_beyond_any_request_costs_only_its_own_row(
    worker: str, folder: Path, tmp_path: Path, batch: int
) -> None:
    (folder / "aa.jpg").write_bytes(bytes(65 * 2**20))

    rows, told = embedded(tmp_path / "out.parquet", folder, "--worker", worker, "--batch", batch)

    (broken,) = [row for row in rows if row["error"] is not None]
    assert Path(broken["path"]).name == "aa.jpg"
    assert broken["error"].startswith("MESSAGE_TOO_LARGE: ")
    assert len(rows) == 10
    assert "1 with an error" in told


def test_a_broken_picture_gets_an_error_and_its_neighbours_vectors(
    worker: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "aa.jpg").write_bytes(b"\xff\xd8 no picture")

    rows, told = embedded(tmp_path / "out.parquet", folder, "--worker", worker)

    broken = [row for row in rows if row["error"] is not None]
    assert [Path(row["path"]).name for row in broken] == ["aa.jpg"]
    assert broken[0]["vector"] is None
    assert broken[0]["space_id"] is None
    assert broken[0]["error"]
    assert len(rows) == 10
    assert all(row["vector"] for row in rows if row["error"] is None)
    assert "9 embedded, 1 with an error: 10 rows in" in told


@pytest.mark.parametrize("content", [b"", b"no film at all"])
def test_a_broken_film_gets_a_row_that_says_so_and_costs_no_other(
    worker: str, folder: Path, tmp_path: Path, content: bytes
) -> None:
    (folder / "broken.mp4").write_bytes(content)

    rows, told = embedded(tmp_path / "out.parquet", folder, "--worker", worker)

    (broken,) = [row for row in rows if row["error"] is not None]
    assert Path(broken["path"]).name == "broken.mp4"
    assert broken["error"].startswith("UNREADABLE: ")
    assert broken["vector"] is None
    assert len(rows) == 10
    assert [Path(row["path"]).name for row in rows[1:4]] == ["b.png", "broken.mp4", "c.webp"]
    assert "1 with an error" in told


def test_a_film_cut_short_keeps_the_frames_it_has(worker: str, tmp_path: Path) -> None:
    whole = write_film(tmp_path / "film.mkv", frames=40)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    rows, _ = embedded(tmp_path / "out.parquet", whole, "--worker", worker)

    assert 0 < sum(row["vector"] is not None for row in rows) < 40


# ---------------------------------------------------------------- failing


def test_a_path_of_an_unknown_kind_is_answered_with_those_known(
    worker: str, folder: Path, tmp_path: Path
) -> None:
    told = refused(tmp_path / "out.parquet", folder / "notes.txt", "--worker", worker)

    assert "notes.txt is none of .avi, .jpeg, .jpg, .mkv, .mov, .mp4, .png, .webm, .webp" in told


def test_a_folder_without_pictures_is_refused(worker: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    told = refused(tmp_path / "out.parquet", tmp_path / "empty", "--worker", worker)

    assert f"no pictures or videos in {tmp_path / 'empty'}" in told


def test_a_file_that_would_be_no_parquet_is_refused(folder: Path, tmp_path: Path) -> None:
    told = refused(tmp_path / "out.csv", folder)

    assert "--out is a .parquet file" in told


def test_an_earlier_file_is_replaced_only_by_force(
    worker: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    embedded(out, folder / "a.jpg", "--worker", worker)

    told = refused(out, folder / "b.png", "--worker", worker)
    rows, _ = embedded(out, folder / "b.png", "--worker", worker, "--force")

    assert f"{out} exists; --force replaces it" in told
    assert Path(rows[0]["path"]).name == "b.png"


def test_a_file_that_another_run_left_meanwhile_is_not_replaced(
    worker: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*given: Any) -> Iterator[Any]:
        out.write_bytes(b"hours of work")
        return pictures_in(*given)

    out = tmp_path / "out.parquet"
    monkeypatch.setattr(embedding, "pictures_in", meanwhile)

    result = invoke("embed", folder / "a.jpg", "--worker", worker, "--out", out)

    assert result.exit_code == 1
    assert f"{out} exists; --force replaces it" in result.stderr
    assert out.read_bytes() == b"hours of work"
    assert pq.read_metadata(tmp_path / "out.parquet.part").num_rows == 1
    assert f"the 1 rows so far are in {out}.part" in result.stderr


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_second_run_to_the_same_file_is_refused_and_the_first_one_keeps_its_rows(
    worker: str, folder: Path, tmp_path: Path, force: list[str]
) -> None:
    draft = tmp_path / ".out.parquet.writing"
    draft.write_bytes(b"rows of the first")

    told = refused(tmp_path / "out.parquet", folder, "--worker", worker, *force)

    assert f"{draft} exists, so another run writes out.parquet; remove it if none does" in told
    assert draft.read_bytes() == b"rows of the first"


def test_what_it_writes_itself_is_no_file_of_the_folder(worker: str, folder: Path) -> None:
    out = folder / "out.parquet"

    _, first = embedded(out, folder, "--worker", worker)
    _, again = embedded(out, folder, "--worker", worker, "--force")

    for told in (first, again):
        assert "skipped 1 file that is no picture: notes.txt\n" in told


def test_a_path_that_is_not_there_is_named(worker: str, tmp_path: Path) -> None:
    told = refused(tmp_path / "out.parquet", tmp_path / "absent.png", "--worker", worker)

    assert "absent.png does not exist" in told


def test_a_model_that_has_vectors_of_patches_only_is_told_to_be_one(
    worker: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Client.embed_images
    tokens: Any = lambda *given, **options: ask(*given, **{**options, "kind": "tokens"})  # noqa: E731
    monkeypatch.setattr(Client, "embed_images", tokens)

    told = refused(tmp_path / "out.parquet", folder, "--worker", worker)

    assert "this model has vectors of patches only, none of a picture" in told


def test_an_unknown_kind_of_vector_is_refused(worker: str, folder: Path, tmp_path: Path) -> None:
    told = refused(tmp_path / "out.parquet", folder, "--worker", worker, "--kind", "tokens")

    assert "--kind is joint or pooled, not 'tokens'" in told


def test_an_unknown_model_is_named(worker: str, folder: Path, tmp_path: Path) -> None:
    told = refused(tmp_path / "out.parquet", folder, "--worker", worker, "--model", "huge")

    assert "huge" in told


def test_without_a_worker_nothing_is_left_behind(folder: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"

    told = refused(tmp_path / "out.parquet", folder, "--worker", address)

    assert address in told


def test_a_failure_leaves_an_earlier_file_as_it_was(
    worker: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    embedded(out, folder / "a.jpg", "--worker", worker)
    before = out.read_bytes()

    refused(out, folder / "a.jpg", folder / "notes.txt", "--worker", worker, "--force")

    assert out.read_bytes() == before


def test_a_folder_that_is_not_there_cannot_be_written_to(
    worker: str, folder: Path, tmp_path: Path
) -> None:
    told = refused(tmp_path / "absent" / "out.parquet", folder, "--worker", worker)

    assert f"the folder {tmp_path / 'absent'} of --out does not exist" in told
