"""What came to an engine and what its batches took, as JSON lines to be played back (`simulation`).

No content: of a request its moment, the keys of its items, its class and how long it had; of a
batch its key, its size and its time. Lines are written as they come, up to so many bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

import msgspec

from tectum_server.worker.engine.replay.arrivals import Arrival

__all__ = ["Recorder", "Recording", "read_recording"]

_log = logging.getLogger(__name__)
_MOST_BYTES = 64 * 2**20


class _Came(msgspec.Struct, frozen=True, tag="came"):
    at_ms: int
    keys: tuple[str, ...]
    priority: int
    patience_ms: int


class _Ran(msgspec.Struct, frozen=True, tag="ran"):
    key: str
    items: int
    took_ms: float


class Recording(msgspec.Struct, frozen=True):
    """What was written."""

    arrivals: tuple[Arrival, ...]
    """By time, the first at 0 ms."""
    batches: tuple[tuple[str, int, float], ...]
    """Each one's key, items and milliseconds, in order."""


class Recorder:
    """Writes to a file, after what it has already.

    Args:
        path: of the file.
        most_bytes: it shall have; what comes then is not written.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, most_bytes: int = _MOST_BYTES) -> None:
        # Unbuffered: an engine that is killed leaves no half of a line for the next one to go on.
        self._file: FileIO | None = path.open("ab", buffering=0)
        self._path = path
        self._size, self._most_bytes = self._file.tell(), most_bytes

    def came(self, at_ms: int, keys: Sequence[Hashable], priority: int, patience_ms: int) -> None:
        """A request has come."""
        self._write(_Came(at_ms, tuple(map(_named, keys)), int(priority), patience_ms))

    def ran(self, key: Hashable, items: int, took_ms: float) -> None:
        """A batch has run."""
        self._write(_Ran(_named(key), items, round(took_ms, 3)))

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: _Came | _Ran) -> None:
        if self._file is None:
            return
        written = msgspec.json.encode(line) + b"\n"
        if self._size + len(written) > self._most_bytes:
            _log.warning("the recording is full", extra={"path": str(self._path)})
            self.close()
            return
        try:
            whole = self._file.write(written) == len(written)
            told = "no room for a whole line"
        except OSError as error:
            whole, told = False, str(error)
        if whole:
            self._size += len(written)
            return
        # A full disk is no reason to stop serving.
        _log.error("nothing more is recorded", extra={"path": str(self._path), "error": told})
        with suppress(OSError):
            self._file.truncate(self._size)
        self.close()


def read_recording(path: Path) -> Recording:
    """What a recorder has written.

    Raises:
        ValueError: a line is none of a recorder's; the last one may be cut off.
    """
    came, ran = list[_Came](), list[_Ran]()
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline is no line
        try:
            told = msgspec.json.decode(line, type=_Came | _Ran)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        came.append(told) if isinstance(told, _Came) else ran.append(told)
    batches = tuple((one.key, one.items, one.took_ms) for one in ran)
    return Recording(tuple(_arrivals(came)), batches)


def _arrivals(came: Iterable[_Came]) -> Iterable[Arrival]:
    """By time from 0 ms; where the clock began anew, as after a reboot, it goes on from before."""
    begun_ms = before_ms = None
    for one in came:
        if begun_ms is None or before_ms is None:
            begun_ms = one.at_ms
        elif one.at_ms < before_ms:
            begun_ms -= before_ms - one.at_ms
        before_ms = one.at_ms
        yield Arrival(one.at_ms - begun_ms, one.keys, one.priority, one.patience_ms)


def _named(key: Hashable) -> str:
    """A key as one word."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
