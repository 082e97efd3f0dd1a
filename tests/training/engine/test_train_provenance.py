"""Which commit a run names, and what of its data makes it another run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from tests.bundles import SCALING, tokenizer
from tests.training.tiny import CAMERA

from tectum_core.tokenizer import Tokenizer
from tectum_train.engine import provenance
from tectum_train.engine.provenance import commit_of, fingerprint_of


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that a checkout has committed."""
    file = tmp_path / "code.py"
    file.write_text("one\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return file


def test_it_is_the_checkouts(file: Path) -> None:
    assert commit_of(file) == git(file.parent, "rev-parse", "HEAD")[:12]


def test_a_tag_does_not_take_its_place(file: Path) -> None:
    git(file.parent, "tag", "--annotate", "v1", "--message", "one")

    assert commit_of(file) == git(file.parent, "rev-parse", "HEAD")[:12]


def test_results_that_are_written_anew_are_no_change_of_what_trains(file: Path) -> None:
    results = file.parent / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "table.md").write_text("none yet")
    git(file.parent, "add", ".")
    git(file.parent, "commit", "-qm", "results")

    (results / "table.md").write_text("some")

    assert commit_of(file) == git(file.parent, "rev-parse", "HEAD")[:12]


def test_changes_are_owned_up_to(file: Path) -> None:
    file.write_text("two\n")

    assert commit_of(file) == git(file.parent, "rev-parse", "HEAD")[:12] + "+changes"


def test_a_checkout_that_only_lies_around_the_file_says_nothing(file: Path) -> None:
    installed = file.parent / "site-packages"
    installed.mkdir()
    (installed / "code.py").write_text("one\n")

    assert commit_of(installed / "code.py") == ""


def test_without_a_checkout_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("one\n")

    assert commit_of(tmp_path / "code.py") == ""


def test_without_git_there_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert commit_of(file) == ""


# ---------------------------------------------------------------- data


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A LeRobot folder of one's own, to change."""
    return Path(shutil.copytree(tiny_data / "train", tmp_path / "train"))


def test_where_data_lie_and_when_they_were_written_is_no_matter(
    data: Path, tiny_data: Path
) -> None:
    for path in data.rglob("*"):
        os.utime(path, (1e9, 1e9))
    (data / "meta" / "world.json").unlink()  # training reads it not

    found = fingerprint_of(data, tokenizer(), SCALING)

    assert found == fingerprint_of(tiny_data / "train", tokenizer(), SCALING)
    assert len(found) == 64


@pytest.mark.parametrize(
    "name", ["info.json", "tasks.parquet", "episodes/chunk-000/file-000.parquet"]
)
def test_every_part_of_the_metadata_counts(data: Path, name: str) -> None:
    before = fingerprint_of(data, tokenizer(), SCALING)

    path = data / "meta" / name
    if path.suffix == ".json":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        parquet.write_table(parquet.read_table(path), path, compression="gzip")

    assert fingerprint_of(data, tokenizer(), SCALING) != before


ROWS, FILM = "data/chunk-000/file-000.parquet", f"videos/{CAMERA}/chunk-000/file-000.mp4"


def replace_byte(path: Path, place: int) -> None:
    """Another value at one place of a file, which stays as long and as old as it was."""
    content, status = bytearray(path.read_bytes()), path.stat()
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", [ROWS, FILM])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_every_byte_of_rows_and_films_counts(data: Path, name: str, place: str) -> None:
    before = fingerprint_of(data, tokenizer(), SCALING)
    size = (data / name).stat().st_size

    replace_byte(data / name, {"first": 0, "middle": size // 2, "last": size - 1}[place])

    assert fingerprint_of(data, tokenizer(), SCALING) != before


@pytest.mark.parametrize(("place", "counts"), [("first", True), ("middle", False), ("last", True)])
@pytest.mark.parametrize("name", [ROWS, FILM])
def test_of_a_large_set_both_ends_of_each_file_count(
    data: Path, name: str, place: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_READ_WHOLE", 1000)
    monkeypatch.setattr(provenance, "_MEBIBYTE", 100)
    before = fingerprint_of(data, tokenizer(), SCALING)
    size = (data / name).stat().st_size

    replace_byte(data / name, {"first": 99, "middle": size // 2, "last": size - 100}[place])

    assert (fingerprint_of(data, tokenizer(), SCALING) != before) is counts


def test_of_a_large_set_the_size_of_each_file_counts(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_READ_WHOLE", 1000)
    monkeypatch.setattr(provenance, "_MEBIBYTE", 100)
    before = fingerprint_of(data, tokenizer(), SCALING)
    content = (data / FILM).read_bytes()

    (data / FILM).write_bytes(content[:200] + content[201:])

    assert fingerprint_of(data, tokenizer(), SCALING) != before


def test_a_film_that_was_never_fetched_and_files_of_nobody_are_no_obstacle(data: Path) -> None:
    whole = fingerprint_of(data, tokenizer(), SCALING)

    (data / "videos" / "README.md").write_text("Films.")
    assert fingerprint_of(data, tokenizer(), SCALING) == whole

    (data / FILM).unlink()
    assert fingerprint_of(data, tokenizer(), SCALING) != whole


def test_the_vocabulary_counts(data: Path) -> None:
    other = Tokenizer.train(["slowly quickly button door"] * 9, 60)
    found = {fingerprint_of(data, words, SCALING) for words in (tokenizer(), other, None)}

    assert len(found) == 3


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"mean": (0.1, 0.2, 0.3, 0.5)}, True),
        ({"state_standard_deviation": (1.0, 2.0, 4.1)}, True),
        ({"names": ("x", "y", "z", "hand")}, True),
        ({"mean": (0.1 * (1 + 1e-14), 0.2, 0.3, 0.4)}, False),  # another processor's sum
    ],
    ids=json.dumps,
)
def test_scales_count_to_six_digits(data: Path, change: dict[str, Any], counts: bool) -> None:
    other = SCALING.model_copy(update=change)

    found = fingerprint_of(data, None, other) != fingerprint_of(data, None, SCALING)

    assert found is counts
