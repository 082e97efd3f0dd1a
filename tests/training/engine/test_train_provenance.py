"""Which commit a run names, and what of its data makes it another run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import SCALING, tokenizer

from tectum_core.tokenizer import Tokenizer
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
    path.write_bytes(path.read_bytes() + b" ")

    assert fingerprint_of(data, tokenizer(), SCALING) != before


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
