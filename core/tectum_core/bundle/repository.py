"""Many bundles under names: `<root>/<name>/<version>/`, with a file `latest` that moves atomically.

The root is a local folder or any fsspec URL; what is remote is fetched into a local
cache once and checked against its version, which is a hash of its content.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import cast

import fsspec

from tectum_core.bundle.files import FILES, BundleError, content_version, largest_size
from tectum_core.caches import user_cache

__all__ = ["NAME", "BundleNotFound", "Repository"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A bundle's, and so a run's: one folder's name, which leads nowhere else."""
_VERSION = re.compile(r"[0-9a-f]{16}")
_LATEST = "latest"
_LONGEST_LATEST = 64
"""Bytes that are read of it: a version has 16."""
_BLOCK = 2**22
"""Bytes fetched at a time."""


class BundleNotFound(LookupError):
    """No bundle of that name or version; says what there is."""


class Repository:
    """A folder of bundles.

    Args:
        root: a local folder, or an fsspec URL such as `s3://bucket/models`.
        cache: where remote bundles are kept; None: a folder in the user's cache.
    """

    def __init__(self, root: str | Path, cache: Path | None = None) -> None:
        self._files, self._root = fsspec.core.url_to_fs(str(root))
        self._local = "file" in _protocols(self._files)
        self._cache = cache or user_cache("bundles")

    def exists(self) -> bool:
        """Whether the root is there at all: an unmounted disk has no bundles, and lost none."""
        self._files.invalidate_cache()
        return bool(self._files.isdir(self._root))

    def names(self) -> list[str]:
        """Every bundle's name, sorted."""
        return sorted(name for name in self._children(self._root) if NAME.fullmatch(name))

    def versions(self, name: str) -> list[str]:
        """Every version of a bundle, sorted; none if there is no such bundle."""
        folder = f"{self._root}/{_checked(name)}"
        return sorted(child for child in self._children(folder) if _VERSION.fullmatch(child))

    def latest(self, name: str) -> str:
        """The version that `latest` names.

        Raises:
            BundleNotFound: no such bundle.
            BundleError: `latest` cannot be read, or holds no version.
        """
        path = f"{self._root}/{_checked(name)}/{_LATEST}"
        self._files.invalidate_cache()  # others publish, too
        if not self._files.exists(path):
            known = ", ".join(self.names()) or "none"
            raise BundleNotFound(f"no bundle named {name!r} here; there are: {known}")
        if self._local and not self._files.isfile(path):  # a pipe would be waited for
            raise BundleError(f"{name}: `latest` is no file")
        try:
            held = self._files.cat_file(path, end=_LONGEST_LATEST)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise BundleError(
                f"{name}: `latest` cannot be read: {error.strerror or type(error).__name__}"
            ) from error
        version = str(held.decode(errors="replace").strip())
        if not _VERSION.fullmatch(version):
            raise BundleError(f"{name}: `latest` holds no version: {version[:40]!r}")
        return version

    def locate(self, name: str, version: str | None = None) -> tuple[Path, str]:
        """A local folder with the bundle, and its version.

        Args:
            name: the bundle's name.
            version: None: the latest.

        What was fetched before is found although the remote may be away, or have it no more. Once
        it is damaged it is fetched again. What is local is given as it is, for `read_bundle` to
        check.

        Raises:
            BundleNotFound: no such bundle or version.
            BundleError: a fetched bundle is not what its version says, or too large.
        """
        if version and not self._local and _VERSION.fullmatch(version):
            cached = self._cache / _checked(name) / version
            if _is_whole(cached):
                return cached, version
        version = version or self.latest(name)
        known = self.versions(name)
        if version not in known:
            raise BundleNotFound(
                f"{name} has no version {version!r}; there are: {', '.join(known) or 'none'}"
            )
        folder = f"{self._root}/{name}/{version}"
        if self._local:
            return Path(folder), version
        return self._fetch(folder, name, version), version

    def publish(self, folder: Path, name: str) -> str:
        """Copy a bundle in and move `latest` to it; gives its version.

        A reader sees the old version or the new one, never a half-written folder.
        """
        version = content_version(folder)
        target = f"{self._root}/{_checked(name)}/{version}"
        if not self._local:
            # Also if the folder is there: an upload that broke off leaves one, and is mended so.
            self._files.put(f"{folder}/", f"{target}/", recursive=True)
        elif not self._files.exists(target):
            _copy_whole(folder, Path(target))
        self._move_latest(f"{self._root}/{name}/{_LATEST}", version)
        return version

    def _move_latest(self, path: str, version: str) -> None:
        if not self._local:
            self._files.pipe_file(path, version.encode())  # object stores replace atomically
            return
        # Not mkstemp, which lets nobody but the owner read what it makes.
        draft = Path(path).with_name(f".latest-{uuid.uuid4().hex}")
        draft.write_text(version + "\n")
        draft.replace(path)

    def _children(self, folder: str) -> list[str]:
        self._files.invalidate_cache(folder)
        if not self._files.isdir(folder):
            return []
        entries = self._files.ls(folder, detail=True)
        return [
            entry["name"].rstrip("/").rsplit("/", 1)[-1]
            for entry in entries
            if entry["type"] == "directory"
        ]

    def _fetch(self, folder: str, name: str, version: str) -> Path:
        target = self._cache / name / version
        if _is_whole(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as scratch:
            draft = Path(scratch) / version
            draft.mkdir()
            for file in FILES:
                if self._files.isfile(f"{folder}/{file}"):
                    self._copy(f"{folder}/{file}", draft / file, largest_size(draft, file, name))
            if content_version(draft) != version:
                raise BundleError(f"{name}: what was fetched is not version {version}")
            if not _is_whole(target):  # else another process was faster
                _move_away(target, Path(scratch) / "damaged")
            _rename_if_absent(draft, target)
        return target

    def _copy(self, source: str, target: Path, largest: int) -> None:
        """Fetch one file; its length is counted as it comes, not believed."""
        with self._files.open(source, "rb") as remote, target.open("wb") as local:
            while block := remote.read(_BLOCK):
                if local.tell() + len(block) > largest:
                    raise BundleError(f"{source} is larger than {largest} bytes")
                local.write(block)


def _checked(name: str) -> str:
    """The name itself, if it can be nothing but one folder's name."""
    if not NAME.fullmatch(name):
        raise BundleNotFound(
            f"{name[:80]!r} is no bundle name: letters, digits, '.', '_', '-', at most 64"
        )
    return name


def _copy_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".publishing-") as scratch:
        draft = Path(scratch) / target.name
        # The repository's readers need not be the source's: modes come from where it goes.
        shutil.copytree(source, draft, copy_function=shutil.copyfile)
        draft.chmod(target.parent.stat().st_mode)
        _rename_if_absent(draft, target)


def _is_whole(folder: Path) -> bool:
    """Whether a folder that is named as a version holds that version's content."""
    try:
        return folder.is_dir() and content_version(folder) == folder.name
    except OSError:  # what the disk cannot give back is as good as changed
        return False


def _move_away(folder: Path, there: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # nothing there, or another process did so first
        folder.rename(there)


def _rename_if_absent(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError:
        if not target.is_dir():  # else another process brought the same content first
            raise


def _protocols(files: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    protocol = files.protocol
    return (protocol,) if isinstance(protocol, str) else cast("tuple[str, ...]", tuple(protocol))
