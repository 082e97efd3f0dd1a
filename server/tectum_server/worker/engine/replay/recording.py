"""What came to an engine and what its batches took, as JSON lines to be played back (`simulation`).

No content: of a request its moment, the keys of its items, what they need before, its class, how
long it had and whether its caller left; of a batch, or a preparation, its key, its size and its
time. Of a stream each frame that had a place, and since when it waited for its turn; which places
are of one stream a number tells, which says nothing of its caller. Lines are written as they come,
up to so many bytes.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from io import FileIO
from pathlib import Path

import msgspec

from tectum_server.worker.engine.policy.cost import Preparation
from tectum_server.worker.engine.replay.arrivals import Arrival
from tectum_server.worker.engine.replay.cameras import Camera

__all__ = ["Framed", "Recorder", "Recording", "read_recording"]

_log = logging.getLogger(__name__)
_MOST_BYTES = 64 * 2**20


class Framed(msgspec.Struct, frozen=True):
    """What a stream's place is for."""

    stream: int
    """The same for all places of one."""
    turn_ms: int
    """Since when it waits for its next answer."""
    captured_ms: int
    """When the frame was captured that the place was asked for with."""


class _Came(msgspec.Struct, frozen=True, tag="came", omit_defaults=True):
    at_ms: int
    keys: tuple[str, ...]
    priority: int
    patience_ms: int
    number: int | None = None
    preparation: tuple[str, int] | None = None
    frame: Framed | None = None


class _Newer(msgspec.Struct, frozen=True, tag="newer"):
    at_ms: int
    number: int
    captured_ms: int


class _Left(msgspec.Struct, frozen=True, tag="left"):
    at_ms: int
    number: int


class _Ran(msgspec.Struct, frozen=True, tag="ran"):
    key: str
    items: int
    took_ms: float


_Line = _Came | _Newer | _Left | _Ran


class Recording(msgspec.Struct, frozen=True):
    """What was written."""

    arrivals: tuple[Arrival, ...]
    """Calls by time; whatever came first came at 0 ms."""
    batches: tuple[tuple[str, int, float], ...]
    """Each one's key, items and milliseconds, in order; of a preparation kind, size and these."""
    cameras: tuple[Camera, ...] = ()
    """Streams in the order in which they opened, one for each thing that is asked of a frame. They
    have the frames that had a place: the engine never heard of the others."""


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
        self._path, self._salt = path, os.urandom(16)
        self._size, self._most_bytes = self._file.tell(), most_bytes

    def came(
        self,
        at_ms: int,
        keys: Sequence[Hashable],
        priority: int,
        patience_ms: int,
        *,
        number: int | None = None,
        preparations: Iterable[Preparation | None] = (),
        frame: Framed | None = None,
    ) -> None:
        """A request has come.

        Args:
            at_ms: when, as all times on the engine's clock.
            keys: of its items.
            priority: its class.
            patience_ms: from then to its deadline.
            number: names it, if more is to be said of it; unique in a process.
            preparations: what its items need before they can run; the largest is written.
            frame: for a stream's place. None: a call.
        """
        largest = max((one for one in preparations if one), key=lambda one: one.size, default=None)
        needs = None if largest is None else (_named(largest.kind), largest.size)
        named = tuple(map(_named, keys))
        self._write(_Came(at_ms, named, int(priority), patience_ms, number, needs, frame))

    def newer(self, at_ms: int, number: int, captured_ms: int) -> None:
        """A stream's place is for a newer frame, which was captured then."""
        self._write(_Newer(at_ms, number, captured_ms))

    def left(self, at_ms: int, number: int) -> None:
        """A request's caller waits for it no more."""
        self._write(_Left(at_ms, number))

    def stream(self, request_id: str) -> int:
        """Tells streams apart, by their callers' requests, without telling these."""
        digest = blake2s(request_id.encode(), key=self._salt, digest_size=6).digest()
        return int.from_bytes(digest, "big")

    def ran(self, key: Hashable, items: int, took_ms: float) -> None:
        """A batch has run, or a preparation: of its kind, and of this size."""
        self._write(_Ran(_named(key), items, round(took_ms, 3)))

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: _Line) -> None:
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
    told = _Told()
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline is no line
        try:
            told.hear(msgspec.json.decode(line, type=_Line))
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return told.recording()


@dataclass(slots=True)
class _Filmed:
    """What is known of a stream."""

    came: _Came
    """Its first place."""
    captures_ms: dict[str, set[int]] = field(default_factory=dict)
    """Of its frames, by the keys of what was asked of them."""
    lifespans_ms: Counter[int] = field(default_factory=Counter)

    def add(self, keys: Iterable[str], captured_ms: int) -> None:
        """A frame had a place."""
        for key in keys:
            self.captures_ms.setdefault(key, set()).add(captured_ms)

    def cameras(self) -> Iterable[Camera]:
        """One for each thing that is asked of its frames."""
        ((lifespan_ms, _),) = self.lifespans_ms.most_common(1)
        for key, found in self.captures_ms.items():
            captures = tuple(sorted(found))
            yield Camera(
                first_ms=captures[0],
                period_ms=0,
                frames=len(captures),
                lifespan_ms=lifespan_ms,
                key=key,
                priority=self.came.priority,
                preparation=_preparation(self.came),
                captures_ms=captures,
            )


class _Told:
    """What a recording's lines add up to."""

    def __init__(self) -> None:
        self._arrivals = list[Arrival]()
        self._batches = list[tuple[str, int, float]]()
        self._streams = dict[int, _Filmed]()
        self._places = dict[int, tuple[_Filmed, tuple[str, ...]]]()
        """By their numbers, with what is asked."""
        self._calls = dict[int, int]()
        """By their numbers, where they stand among the arrivals."""
        self._begun_ms: int | None = None
        self._before_ms = 0

    def hear(self, line: _Line) -> None:
        """One more."""
        if isinstance(line, _Ran):
            self._batches.append((line.key, line.items, line.took_ms))
            return
        at_ms, begun_ms = self._moment(line.at_ms)
        if isinstance(line, _Came):
            self._come(line, at_ms, begun_ms)
        elif isinstance(line, _Newer):
            if line.number in self._places:
                stream, keys = self._places[line.number]
                stream.add(keys, max(0, line.captured_ms - begun_ms))
        elif line.number in self._calls:
            place = self._calls[line.number]
            arrival = self._arrivals[place]
            after_ms = at_ms - arrival.at_ms
            self._arrivals[place] = replace(arrival, leaves_after_ms=after_ms)

    def recording(self) -> Recording:
        """What was heard."""
        cameras = (one for stream in self._streams.values() for one in stream.cameras())
        return Recording(tuple(self._arrivals), tuple(self._batches), tuple(cameras))

    def _come(self, line: _Came, at_ms: int, begun_ms: int) -> None:
        if line.number is not None:  # whoever had it before was another process's
            self._places.pop(line.number, None)
            self._calls.pop(line.number, None)
        if line.frame is None:
            if line.number is not None:
                self._calls[line.number] = len(self._arrivals)
            needs = _preparation(line)
            self._arrivals.append(
                Arrival(at_ms, line.keys, line.priority, line.patience_ms, preparation=needs)
            )
            return
        stream = self._streams.setdefault(line.frame.stream, _Filmed(line))
        captured_ms = line.frame.captured_ms
        stream.add(line.keys, max(0, captured_ms - begun_ms))
        stream.lifespans_ms[line.at_ms + line.patience_ms - captured_ms] += 1
        if line.number is not None:
            self._places[line.number] = stream, line.keys

    def _moment(self, at_ms: int) -> tuple[int, int]:
        """From 0 ms, and what that is on the clock; one that began anew goes on from before."""
        if self._begun_ms is None:
            self._begun_ms = at_ms
        elif at_ms < self._before_ms:
            self._begun_ms -= self._before_ms - at_ms
        self._before_ms = at_ms
        return at_ms - self._begun_ms, self._begun_ms


def _preparation(line: _Came) -> Preparation | None:
    return None if line.preparation is None else Preparation(*line.preparation)


def _named(key: Hashable) -> str:
    """A key as one word."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
