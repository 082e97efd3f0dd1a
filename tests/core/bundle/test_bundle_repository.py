"""Many bundles under names: local or by URL, `latest` moving at once, names that cannot wander."""

import os
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tectum_core.bundle import BundleError, BundleNotFound, Repository, read_bundle
from tectum_core.bundle.files import content_version, largest_size


@dataclass(frozen=True)
class Remote:
    """A repository behind a URL that holds the first of `two` as `arm`."""

    repository: Repository
    version: str
    cache: Path
    """Of what is fetched of `arm`."""
    files: fsspec.AbstractFileSystem
    folder: str
    """The version's, in `files`."""


@pytest.fixture
def remote(tmp_path: Path, two: list[Path]) -> Remote:
    url = f"memory://{uuid.uuid4().hex}"
    repository = Repository(url, cache=tmp_path)
    version = repository.publish(two[0], "arm")
    files, path = fsspec.core.url_to_fs(url)
    return Remote(repository, version, tmp_path / "arm", files, f"{path}/arm/{version}")


def test_what_is_published_is_found_under_name_version_and_latest(
    repository: Repository, two: list[Path]
) -> None:
    first = repository.publish(two[0], "arm")
    second = repository.publish(two[1], "arm")

    assert repository.names() == ["arm"]
    assert repository.versions("arm") == sorted([first, second])
    assert repository.latest("arm") == second
    for wanted, version, source in ((None, second, two[1]), (first, first, two[0])):
        folder, found = repository.locate("arm", wanted)
        assert found == version
        assert content_version(folder) == content_version(source)
        assert read_bundle(folder, "arm", found).version == version


def test_publishing_an_older_bundle_again_moves_latest_back(
    repository: Repository, two: list[Path]
) -> None:
    first = repository.publish(two[0], "arm")
    repository.publish(two[1], "arm")

    assert repository.publish(two[0], "arm") == first == repository.latest("arm")
    assert len(repository.versions("arm")) == 2


def test_an_empty_repository_has_nothing(repository: Repository) -> None:
    assert repository.names() == []
    assert repository.versions("arm") == []
    with pytest.raises(BundleNotFound, match="no bundle named 'arm' here; there are: none"):
        repository.latest("arm")


def test_an_unknown_name_is_told_what_there_is(repository: Repository, two: list[Path]) -> None:
    repository.publish(two[0], "arm")
    repository.publish(two[0], "gripper")

    with pytest.raises(BundleNotFound, match="no bundle named 'leg' here; there are: arm, gripper"):
        repository.locate("leg")


def test_an_unknown_version_is_told_what_there_is(repository: Repository, two: list[Path]) -> None:
    version = repository.publish(two[0], "arm")

    with pytest.raises(BundleNotFound, match=f"no version '{'0' * 16}'; there are: {version}"):
        repository.locate("arm", "0" * 16)


@pytest.mark.parametrize(
    "name", ["..", ".", "../arm", "a/b", "/etc", "", ".hidden", "a" * 65, "arm\n", "a\0b", "ärm"]
)
def test_names_that_could_wander_are_refused(
    repository: Repository, two: list[Path], name: str
) -> None:
    for ask in (
        repository.latest,
        repository.versions,
        repository.locate,
        lambda given: repository.publish(two[0], given),
        lambda given: repository.locate(given, "0" * 16),
    ):
        with pytest.raises(BundleNotFound, match="is no bundle name"):
            ask(name)
    assert repository.names() == []


@pytest.mark.parametrize("version", ["..", "../../etc", "latest", "0" * 15, "A" * 16])
def test_versions_that_could_wander_are_refused(
    repository: Repository, two: list[Path], version: str
) -> None:
    repository.publish(two[0], "arm")

    with pytest.raises(BundleNotFound, match="has no version"):
        repository.locate("arm", version)


def test_files_that_are_no_bundles_are_not_listed(
    repository: Repository, root: str, two: list[Path]
) -> None:
    version = repository.publish(two[0], "arm")
    files, path = fsspec.core.url_to_fs(root)
    files.pipe_file(f"{path}/notes.txt", b"hello")
    files.makedirs(f"{path}/arm/.publishing-x")
    files.pipe_file(f"{path}/arm/.publishing-x/file", b"half")

    assert repository.names() == ["arm"]
    assert repository.versions("arm") == [version]


def test_what_is_remote_is_fetched_once_and_kept(remote: Remote) -> None:
    folder, _ = remote.repository.locate("arm")
    remote.files.pipe_file(f"{remote.folder}/README.md", b"# Changed behind our back\n")

    again, _ = remote.repository.locate("arm")

    assert again == folder == remote.cache / remote.version
    assert content_version(again) == remote.version
    assert [p.name for p in folder.parent.iterdir()] == [remote.version]  # no scratch is left


def test_a_version_that_was_fetched_needs_the_remote_no_more(remote: Remote) -> None:
    folder, _ = remote.repository.locate("arm")
    remote.files.rm(remote.folder.partition("/arm/")[0], recursive=True)

    again = remote.repository.locate("arm", remote.version)

    assert again == (folder, remote.version)
    with pytest.raises(BundleNotFound):
        remote.repository.locate("arm")  # which version is the latest, the remote alone knows
    (folder / "README.md").write_text("damaged")
    with pytest.raises(BundleNotFound):
        remote.repository.locate("arm", remote.version)


def test_what_was_damaged_on_its_way_is_refused_and_not_kept(remote: Remote) -> None:
    whole = remote.files.cat_file(f"{remote.folder}/model.safetensors")
    remote.files.pipe_file(f"{remote.folder}/model.safetensors", whole[:-1])

    with pytest.raises(BundleError, match=f"what was fetched is not version {remote.version}"):
        remote.repository.locate("arm")

    assert list(remote.cache.iterdir()) == []
    remote.files.pipe_file(f"{remote.folder}/model.safetensors", whole)
    assert content_version(remote.repository.locate("arm")[0]) == remote.version


def damage(folder: Path) -> None:
    """Lose the last byte of its card."""
    card = folder / "README.md"
    card.write_bytes(card.read_bytes()[:-1])


def lose_card(folder: Path) -> None:
    (folder / "README.md").unlink()


def make_unreadable(folder: Path) -> None:
    """A card that fails to be read, as from a bad disk."""
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/proc/self/mem")


@pytest.mark.parametrize("harm", [damage, lose_card, make_unreadable, shutil.rmtree])
@pytest.mark.parametrize("named", [True, False], ids=["by version", "the latest"])
def test_what_was_damaged_since_it_was_fetched_is_fetched_again(
    remote: Remote, harm: Callable[[Path], None], named: bool
) -> None:
    folder, version = remote.repository.locate("arm")
    harm(folder)

    again, _ = remote.repository.locate("arm", version if named else None)

    assert again == folder
    assert read_bundle(again, "arm", version).version == version
    assert [p.name for p in remote.cache.iterdir()] == [version]


def test_what_is_damaged_stays_until_it_can_be_fetched(remote: Remote) -> None:
    folder, _ = remote.repository.locate("arm")
    damage(folder)
    remote.files.pipe_file(f"{remote.folder}/README.md", b"# Damaged there too\n")

    with pytest.raises(BundleError, match=f"what was fetched is not version {remote.version}"):
        remote.repository.locate("arm")

    assert [p.name for p in remote.cache.iterdir()] == [remote.version]


def test_several_may_fetch_what_is_damaged_at_once(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = remote.repository.locate("arm")
    damage(folder)
    copy, one_at_a_time = Repository._copy, threading.Lock()

    def copied(*of: Any) -> None:
        with one_at_a_time:  # readers of fsspec's memory share one place in a file
            copy(*of)

    monkeypatch.setattr(Repository, "_copy", copied)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(remote.repository.locate("arm")[0]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [folder] * 8
    assert content_version(folder) == remote.version
    assert [p.name for p in remote.cache.iterdir()] == [remote.version]


def test_a_local_bundle_that_is_damaged_says_so(tmp_path: Path, two: list[Path]) -> None:
    repository = Repository(tmp_path)
    version = repository.publish(two[0], "arm")
    damage(tmp_path / "arm" / version)

    folder, found = repository.locate("arm")

    with pytest.raises(
        BundleError, match=f"the content hashes to .*, not to its version {version}"
    ):
        read_bundle(folder, "arm", found)


def test_nothing_but_a_bundles_files_is_fetched(remote: Remote, two: list[Path]) -> None:
    remote.files.pipe_file(f"{remote.folder}/notes.txt", b"hello")
    remote.files.pipe_file(f"{remote.folder}/more/config.json", b"{}")

    folder, _ = remote.repository.locate("arm")

    assert {p.name for p in folder.iterdir()} == {p.name for p in two[0].iterdir()}


@pytest.mark.parametrize(
    ("file", "largest"),
    [
        ("config.json", 2**24),
        ("golden.safetensors", 2**27),
        ("README.md", 2**20),
        ("model.safetensors", None),
    ],
)
def test_a_remote_file_is_fetched_up_to_what_is_read_of_it(
    remote: Remote, two: list[Path], file: str, largest: int | None
) -> None:
    allowed = largest or largest_size(two[0], file, "arm")
    remote.files.pipe_file(f"{remote.folder}/{file}", bytes(allowed + 1))

    with pytest.raises(BundleError, match=rf"{file} is larger than {allowed} bytes"):
        remote.repository.locate("arm")

    assert list(remote.cache.iterdir()) == []


def test_weights_may_be_as_large_as_the_configuration_says(two: list[Path]) -> None:
    weights = (two[0] / "model.safetensors").stat().st_size

    assert 0 < largest_size(two[0], "model.safetensors", "arm") - 2 * weights < 2**26


def test_an_upload_that_broke_off_is_mended_by_the_next(remote: Remote, two: list[Path]) -> None:
    remote.files.rm(f"{remote.folder}/model.safetensors")

    remote.repository.publish(two[0], "arm")

    assert content_version(remote.repository.locate("arm")[0]) == remote.version


@pytest.mark.parametrize("mask", [0o022, 0o027], ids=oct)
def test_what_is_published_the_repositorys_readers_may_read(
    tmp_path: Path, two: list[Path], mask: int
) -> None:
    private = Path(shutil.copytree(two[0], tmp_path / "private"))
    for file in private.iterdir():
        file.chmod(0o600)
    private.chmod(0o700)
    before = os.umask(mask)
    try:
        version = Repository(tmp_path / "models").publish(private, "arm")
    finally:
        os.umask(before)

    published = tmp_path / "models" / "arm" / version
    assert {path.stat().st_mode & 0o777 for path in published.iterdir()} == {0o666 & ~mask}
    assert published.stat().st_mode & 0o777 == 0o777 & ~mask
    assert (published.parent / "latest").stat().st_mode & 0o777 == 0o666 & ~mask


def test_two_may_publish_the_same_content_at_once(tmp_path: Path, two: list[Path]) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(Repository(tmp_path).publish(two[0], "arm")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [content_version(two[0])] * 8
    assert sorted(p.name for p in (tmp_path / "arm").iterdir()) == sorted([found[0], "latest"])


def test_the_cache_is_the_users_own_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")

    assert Repository("memory://x")._cache == Path("/somewhere/tectum/bundles")
