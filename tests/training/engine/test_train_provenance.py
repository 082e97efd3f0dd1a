"""Which commit a run names: its own checkout's, with changes owned up to, or none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tectum_train.engine.provenance import commit_of


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
