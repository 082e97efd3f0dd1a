"""From the contract's images to pixels, on a small pool of threads.

The pool is the front's only heavy work; decoding releases the GIL, so a few threads
help and the event loop stays free.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, image_pb2
from tectum_core.image import ImageError, TooLarge, Unreadable, decode
from tectum_server.worker.failure import Failure
from tectum_server.worker.metrics import FrontMetrics

__all__ = ["ImageReader"]

Pixels = NDArray[np.uint8]


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

    async def read(self, image: image_pb2.Image, field: str) -> tuple[Pixels, float]:
        """uint8[H, W, 3], and the seconds it took to decode (0 for raw pixels).

        Raises:
            Failure: no image, or none that is accepted.
        """
        content = image.WhichOneof("content")
        if content is None:
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING, "encoded or raw must be set", field
            )
        if content == "raw":
            return self._raw(image.raw, f"{field}.raw"), 0.0
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._decode, image.encoded, field)

    async def read_all(
        self, images: Sequence[image_pb2.Image], field: str, part: str = ""
    ) -> tuple[list[Pixels | Failure], float]:
        """Every image or why it has none, and the seconds spent decoding in all.

        Args:
            images: of one request.
            field: the list's path.
            part: what of the list's members; an image's own path is `field[index]part`.
        """
        found = await asyncio.gather(
            *(self.read(image, f"{field}[{index}]{part}") for index, image in enumerate(images)),
            return_exceptions=True,
        )
        pixels: list[Pixels | Failure] = []
        seconds = 0.0
        for result in found:
            if isinstance(result, Failure):
                pixels.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                pixels.append(result[0])
                seconds += result[1]
        return pixels, seconds

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
        if len(raw.data) != expected:
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                f"{raw.height}×{raw.width} RGB needs {expected} bytes, found {len(raw.data)}",
                f"{field}.data",
            )
        return np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3)

    def _decode(self, data: bytes, field: str) -> tuple[Pixels, float]:
        started = time.perf_counter()
        try:
            pixels = decode(data, max_pixels=self._max_pixels)
        except ImageError as error:
            raise Failure(_reason(error), str(error), f"{field}.encoded") from error
        took = time.perf_counter() - started
        self._metrics.decode_duration.observe(took)
        return pixels, took


def _reason(error: ImageError) -> errors_pb2.ErrorReason.ValueType:
    if isinstance(error, TooLarge):
        return errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE
    if isinstance(error, Unreadable):
        return errors_pb2.ERROR_REASON_IMAGE_UNREADABLE
    return errors_pb2.ERROR_REASON_IMAGE_UNSUPPORTED
