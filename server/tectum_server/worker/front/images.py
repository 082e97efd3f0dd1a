"""From the contract's images to pixels, on a small pool of threads.

The pool is the front's only heavy work; decoding releases the GIL, so a few threads
help and the event loop stays free.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, image_pb2
from tectum_core.image import ImageError, TooLarge, Unreadable, decode, probe
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.metrics import FrontMetrics

__all__ = ["ImageReader", "Pixels"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """An image file that is not decoded yet."""

    data: bytes
    nbytes: int
    """What its pixels will take."""


class ImageReader:
    """Reads images.

    Args:
        threads: at most so many at once.
        max_pixels: height × width of one image.
        metrics: where decoding times go.
    """

    def __init__(self, threads: int, max_pixels: int, metrics: FrontMetrics) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_pixels = max_pixels
        self._metrics = metrics

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

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
        if not images:
            return []
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, self._open_all, images)
        call.memory.take(
            {field: one.nbytes for field, one in found.items() if not isinstance(one, Failure)}
        )

        async def pixels(field: str, one: Pixels | _File | Failure) -> Pixels | Failure:
            if not isinstance(one, _File):
                return one
            try:
                decoded = await loop.run_in_executor(self._pool, self._decode, one.data, field)
            except Failure as failure:
                return failure
            call.decode_seconds += decoded[1]
            return decoded[0]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(pixels(field, one)) for field, one in found.items()]
        return [task.result() for task in tasks]

    def _open_all(
        self, images: Mapping[str, image_pb2.Image]
    ) -> dict[str, Pixels | _File | Failure]:
        """Raw pixels as they are, files with what their headers announce; nothing is decoded."""
        found: dict[str, Pixels | _File | Failure] = {}
        for field, image in images.items():
            try:
                found[field] = self._open(image, field)
            except Failure as failure:
                found[field] = failure
        return found

    def _open(self, image: image_pb2.Image, field: str) -> Pixels | _File:
        match image.WhichOneof("content"):
            case "raw":
                return self._raw(image.raw, f"{field}.raw")
            case "encoded":
                data = image.encoded
                return _File(data, self._size(data, f"{field}.encoded"))
            case _:
                raise Failure(
                    errors_pb2.ERROR_REASON_FIELD_MISSING, "encoded or raw must be set", field
                )

    def _size(self, data: bytes, field: str) -> int:
        """Bytes of a file's pixels; 0 if there are too many, which `decode` will refuse."""
        try:
            header = probe(data)
        except ImageError as error:
            raise _failure(error, field) from error
        pixels = header.height * header.width
        return 3 * pixels if pixels <= self._max_pixels else 0

    def _raw(self, raw: image_pb2.RawImage, field: str) -> Pixels:
        if not raw.height or not raw.width:
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH, "height and width are at least 1", field
            )
        if raw.height * raw.width > self._max_pixels:
            raise Failure(
                errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE,
                f"{raw.height}×{raw.width} pixels, at most {self._max_pixels} are allowed",
                field,
            )
        expected = raw.height * raw.width * 3
        data = raw.data  # a copy each time it is asked for
        if len(data) != expected:
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                f"{raw.height}×{raw.width} RGB needs {expected} bytes, found {len(data)}",
                f"{field}.data",
            )
        return np.frombuffer(data, np.uint8).reshape(raw.height, raw.width, 3)

    def _decode(self, data: bytes, field: str) -> tuple[Pixels, float]:
        """The pixels, and the seconds it took."""
        started = time.perf_counter()
        try:
            pixels = decode(data, max_pixels=self._max_pixels)
        except ImageError as error:
            raise _failure(error, f"{field}.encoded") from error
        took = time.perf_counter() - started
        self._metrics.decode_duration.observe(took)
        return pixels, took


def _failure(error: ImageError, field: str) -> Failure:
    if isinstance(error, TooLarge):
        reason = errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE
    elif isinstance(error, Unreadable):
        reason = errors_pb2.ERROR_REASON_IMAGE_UNREADABLE
    else:
        reason = errors_pb2.ERROR_REASON_IMAGE_UNSUPPORTED
    return Failure(reason, str(error), field)
