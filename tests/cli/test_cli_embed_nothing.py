"""`tectum embed` where no picture could be embedded: it says why, has rows of it, and exits 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.cli.running import invoke

from tectum_cli import embed as embedding


def embedded_nothing(out: Path, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    """The rows of a call that writes them, but could embed no picture."""
    result = invoke("embed", *arguments, "--out", out)
    assert result.exit_code == 1
    assert "0 embedded, " in result.stderr
    return pq.read_table(out).to_pylist(), result.stderr


def write_sound(path: Path) -> Path:
    """A film without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("content", "why"), [(b"\xff\xd8 no picture", "IMAGE_UNREADABLE: "), (b"", "UNREADABLE: ")]
)
@pytest.mark.parametrize("batch", [1, 32])
def test_pictures_that_are_all_broken_get_a_row_each(
    worker: str, tmp_path: Path, content: bytes, why: str, batch: int
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(content)

    rows, told = embedded_nothing(
        tmp_path / "out.parquet", tmp_path / "a.jpg", tmp_path / "b.jpg",
        "--worker", worker, "--batch", batch,
    )  # fmt: skip

    assert [Path(row["path"]).name for row in rows] == ["a.jpg", "b.jpg"]
    assert all(row["error"].startswith(why) for row in rows)
    for row in rows:
        assert f"not embedded: {row['path']}: {row['error']}\n" in told


def test_a_film_without_pictures_says_so(worker: str, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "sound.mkv")

    rows, _ = embedded_nothing(tmp_path / "out.parquet", sound, "--worker", worker)

    assert [row["error"] for row in rows] == ["UNREADABLE: has no pictures"]


def test_of_many_failures_a_few_are_told_and_the_rows_have_them_all(
    worker: str, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for number in range(5):
        (media / f"{number} [red].jpg").write_bytes(b"")

    rows, told = embedded_nothing(tmp_path / "out.parquet", media, "--worker", worker)

    lines = [line for line in told.splitlines() if line.startswith("not embedded: ")]
    assert lines == [f"not embedded: {row['path']}: UNREADABLE: is empty" for row in rows[:3]]
    assert "and 2 more; the column error says why\n" in told
    assert len(rows) == 5


def test_however_many_rows_fail_only_a_few_are_kept_in_mind() -> None:
    failed = embedding._Failed()
    rows: list[dict[str, object]] = [
        {"path": str(one), "error": one % 2 or None} for one in range(10)
    ]

    for _ in range(1000):
        failed.note(rows)

    assert failed.count == 5000
    assert [row["path"] for row in failed.first] == ["1", "3", "5"]
