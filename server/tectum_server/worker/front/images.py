"""From the contract's images to pixels: raw ones at once, files on a small pool of threads.

Decoding is the front's only heavy work; it releases the GIL, so a few threads help and the
event loop stays free. What is raw is only copied: few bytes are so at once, with no thread
between a caller and its answer, and only what is large goes to the threads.

A message's bytes are copied each time they are asked for, so they are asked for where they are
needed and not held: what waits holds its message and nothing else. Those of large pictures are not
in it (`parts`), and pixels among them are never copied here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, image_pb2
from tectum_core.image import ImageError, TooLarge, Unreadable, decode, probe
from tectum_server.worker.durations import Span, covered
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.decoding import UrgentFirst
from tectum_server.worker.front.messages.parts import Parts
from tectum_server.worker.front.sharing import SharedPicture
from tectum_server.worker.metrics import FrontMetrics

__all__ = ["ImageReader", "Opened", "Pixels"]

_log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]
_T = TypeVar("_T")
_AT_ONCE = 4 * 2**20
"""Bytes of raw pictures that the event loop itself copies, a millisecond's worth."""


@dataclass(slots=True, eq=False)
class Opened:
    """An image whose size is known, and of whose pixels there is none yet."""

    image: image_pb2.Image
    field: str
    """Its path in the request."""
    height: int
    width: int
    parts: Parts
    """Where its bytes may be instead."""
    into: Pixels | None = None
    """uint8[H, W, 3], where its pixels shall go; None: to an array of their own."""

    @property
    def nbytes(self) -> int:
        """What its pixels will take."""
        return self.height * self.width * 3

    @property
    def raw(self) -> bool:
        """Whether it needs no decoding."""
        return self.image.HasField("raw")

    @property
    def copied(self) -> int:
        """Bytes of raw pixels that are copied as they are read: none that stay where they came."""
        stays = self.into is None and self.image.raw.ByteSize() < self.nbytes
        return 0 if stays else self.nbytes

    @property
    def data(self) -> bytes | memoryview:
        """Its bytes."""
        return self.parts.of(self.image.raw.data if self.raw else self.image.encoded)


class ImageReader:
    """Reads images.

    Args:
        threads: at most so many at once.
        max_pixels: height × width of one image.
        metrics: where decoding times go.
    """

    def __init__(self, threads: int, max_pixels: int, metrics: FrontMetrics) -> None:
        self._pool = UrgentFirst(threads, "decode")
        self._max_pixels = max_pixels
        self._metrics = metrics

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

    async def read(self, image: image_pb2.Image, call: Call, field: str) -> Pixels:
        """uint8[H, W, 3].

        Args:
            image: to read.
            call: whose memory it takes, and whose time.
            field: its path in the request.

        Raises:
            Failure: no image, none that is accepted, or no room for it.
        """
        (found,) = await self.read_all({field: image}, call)
        if isinstance(found, Failure):
            raise found
        return found

    async def read_all(
        self, images: Mapping[str, image_pb2.Image], call: Call
    ) -> list[Pixels | Failure]:
        """Every image, or why it has no pixels, in order.

        Args:
            images: by their paths in the request.
            call: whose memory they take, and whose time.

        Raises:
            Failure: together they need more memory than there is, for now or ever.
        """
        found = await self.open(images, call)
        call.memory.take({one.field: one.nbytes for one in found if isinstance(one, Opened)})
        return await self.fill(found, call)

    async def open(
        self, images: Mapping[str, image_pb2.Image], call: Call
    ) -> list[Opened | Failure]:
        """Every image's size, or why it can have no pixels, in order; nothing is decoded."""
        copied = [
            image.ByteSize() if image.HasField("raw") else _AT_ONCE + 1 for image in images.values()
        ]
        work = partial(self._open_all, images, call.parts)
        return work() if sum(copied) <= _AT_ONCE else await self._beside(work, call)

    async def fill(self, images: Sequence[Opened | Failure], call: Call) -> list[Pixels | Failure]:
        """The pixels of images whose memory has been taken, or why they have none, in order."""
        opened = [one for one in images if isinstance(one, Opened)]
        raw = sum(one.copied for one in opened if one.raw)

        decoded: list[Span] = []

        async def pixels(one: Opened) -> Pixels | Failure:
            return await self._beside(partial(self._pixels, one, decoded), call)

        async with asyncio.TaskGroup() as group:
            found = [
                one
                if isinstance(one, Failure)
                else _raw(one)
                if one.raw and raw <= _AT_ONCE
                else group.create_task(pixels(one))
                for one in images
            ]
        call.decode_seconds += covered(decoded)
        return [one.result() if isinstance(one, asyncio.Task) else one for one in found]

    async def copied(self, picture: SharedPicture, call: Call, field: str) -> Pixels:
        """Pixels that lie in shared memory, which take memory of the call's from now on.

        Raises:
            Failure: they are not there, or no room for them.
        """
        call.memory.take({field: picture.nbytes})
        try:
            if picture.nbytes <= _AT_ONCE:
                return picture.read()
            return await self._beside(picture.read, call)
        except BaseException:
            call.memory.give_back(picture.nbytes)
            raise

    async def _beside(self, work: Callable[[], _T], call: Call) -> _T:
        """Do work on a thread, when it is this call's turn."""
        return await asyncio.wrap_future(self._pool.submit(work, call.priority, call.deadline))

    def _open_all(
        self, images: Mapping[str, image_pb2.Image], parts: Parts
    ) -> list[Opened | Failure]:
        return [self._open(image, field, parts) for field, image in images.items()]

    def _open(self, image: image_pb2.Image, field: str, parts: Parts) -> Opened | Failure:
        match image.WhichOneof("content"):
            case "raw":
                return self._open_raw(image, field, parts)
            case "encoded":
                return self._open_file(image, field, parts)
        return Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "encoded or raw must be set", field)

    def _open_file(self, image: image_pb2.Image, field: str, parts: Parts) -> Opened | Failure:
        data = bytes(parts.of(image.encoded))
        try:
            header = probe(data)
            if header.height * header.width > self._max_pixels:
                decode(data, max_pixels=self._max_pixels)  # which refuses it, and knows the words
        except ImageError as error:
            return _failure(error, field)
        except Exception:
            return _fault(field)
        return Opened(image, field, header.height, header.width, parts)

    def _open_raw(self, image: image_pb2.Image, field: str, parts: Parts) -> Opened | Failure:
        raw = image.raw
        if not raw.height or not raw.width:
            return Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                "height and width are at least 1",
                f"{field}.raw",
            )
        if raw.height * raw.width > self._max_pixels:
            return Failure(
                errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE,
                f"{raw.height}×{raw.width} pixels, at most {self._max_pixels} are allowed",
                f"{field}.raw",
            )
        opened = Opened(image, field, raw.height, raw.width, parts)
        found = len(opened.data)
        if found != opened.nbytes:
            return Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                f"{raw.height}×{raw.width} RGB needs {opened.nbytes} bytes, found {found}",
                f"{field}.raw.data",
            )
        return opened

    def _pixels(self, one: Opened, decoded: list[Span]) -> Pixels | Failure:
        """The pixels; adds when they were decoded, if they were."""
        if one.raw:
            return _raw(one)
        started = time.perf_counter()
        try:
            pixels = _placed(decode(bytes(one.data), max_pixels=self._max_pixels), one)
        except ImageError as error:
            return _failure(error, one.field)
        except Exception:
            return _fault(one.field)
        ended = time.perf_counter()
        decoded.append((started, ended))
        self._metrics.decode_duration.observe(ended - started)
        return pixels


def _raw(one: Opened) -> Pixels:
    pixels = np.frombuffer(one.data, np.uint8)
    return _placed(pixels.reshape(one.height, one.width, 3), one)


def _placed(pixels: Pixels, one: Opened) -> Pixels:
    """The pixels where they shall be."""
    if one.into is None:
        return pixels
    one.into[:] = pixels
    return one.into


def _failure(error: ImageError, field: str) -> Failure:
    if isinstance(error, TooLarge):
        reason = errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE
    elif isinstance(error, Unreadable):
        reason = errors_pb2.ERROR_REASON_IMAGE_UNREADABLE
    else:
        reason = errors_pb2.ERROR_REASON_IMAGE_UNSUPPORTED
    return Failure(reason, str(error), f"{field}.encoded")


def _fault(field: str) -> Failure:
    """For a fault of the decoder's, or no memory: it is this picture's alone."""
    _log.exception("a picture could not be read")
    words = "the worker failed to read it; its log says why"
    return Failure(errors_pb2.ERROR_REASON_INTERNAL, words, f"{field}.encoded")
