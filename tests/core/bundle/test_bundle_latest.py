"""`latest`: one that names no version is refused under its bundle's name, and it moves at once."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from tectum_core.bundle import BundleError, Repository


@pytest.mark.parametrize(
    "held",
    [b"../../../etc\n", b"\xff\xfe\x00", b"", b"0" * 15, b"0" * 17, b"0" * 2**20],
    ids=["a path", "no text", "nothing", "too short", "too long", "far too long"],
)
def test_a_latest_that_holds_no_version_is_refused(
    repository: Repository, root: str, two: list[Path], held: bytes
) -> None:
    repository.publish(two[0], "arm")
    files, path = fsspec.core.url_to_fs(root)
    files.pipe_file(f"{path}/arm/latest", held)

    with pytest.raises(BundleError, match="arm: `latest` holds no version: ") as caught:
        repository.locate("arm")

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_a_latest_that_is_no_file_is_refused(
    tmp_path: Path, two: list[Path], put: Callable[[Path], None]
) -> None:
    repository = Repository(tmp_path)
    repository.publish(two[0], "arm")
    (tmp_path / "arm" / "latest").unlink()
    put(tmp_path / "arm" / "latest")

    with pytest.raises(BundleError, match="arm: `latest` is no file"):
        repository.locate("arm")


def test_a_latest_behind_a_url_that_is_a_folder_is_refused(
    remote_root: str, two: list[Path]
) -> None:
    repository = Repository(remote_root)
    repository.publish(two[0], "arm")
    files, path = fsspec.core.url_to_fs(remote_root)
    files.rm(f"{path}/arm/latest")
    files.pipe_file(f"{path}/arm/latest/file", b"?")

    with pytest.raises(BundleError, match="arm: `latest` cannot be read: "):
        repository.latest("arm")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), PermissionError()])
def test_a_latest_that_may_not_be_read_is_refused(
    repository: Repository, two: list[Path], monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    repository.publish(two[0], "arm")

    def forbidden(*_: object, **__: object) -> bytes:
        raise error

    monkeypatch.setattr(repository._files, "cat_file", forbidden)

    with pytest.raises(BundleError, match="arm: `latest` cannot be read: Permission"):
        repository.latest("arm")


def test_latest_is_never_half_written(tmp_path: Path, two: list[Path]) -> None:
    repository = Repository(tmp_path)
    versions = {repository.publish(folder, "arm") for folder in two}
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        reader = Repository(tmp_path)
        while not done.is_set():
            seen.add(reader.latest("arm"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(100):
        for folder in two:
            repository.publish(folder, "arm")
    done.set()
    watcher.join()

    assert seen <= versions
    assert sorted(p.name for p in (tmp_path / "arm").iterdir()) == sorted([*versions, "latest"])
