"""Cameras for the tests of streams, and ways to read either kind of stream."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
from numpy.typing import NDArray

import tectum

SMALL = np.zeros((4, 4, 3), np.uint8)
LARGE = np.zeros((480, 640, 3), np.uint8)
"""More than the transport takes at once from a worker that does not read."""


def frames(count: int, image: NDArray[np.uint8] = SMALL) -> list[tectum.Frame]:
    return [tectum.Frame(image, captured_at=1000 + 0.05 * i) for i in range(count)]


def paced(count: int) -> Iterator[tectum.Frame]:
    for frame in frames(count):
        yield frame
        time.sleep(0.03)


async def paced_async(count: int) -> AsyncIterator[tectum.Frame]:
    for frame in frames(count):
        yield frame
        await asyncio.sleep(0.03)


async def collect(
    stream: tectum.Stream | tectum.AsyncStream,
) -> list[tectum.FrameResult]:
    if isinstance(stream, tectum.AsyncStream):
        return [result async for result in stream]
    return await asyncio.to_thread(list, stream)


async def accepted(stream: tectum.Stream | tectum.AsyncStream) -> None:
    if isinstance(stream, tectum.AsyncStream):
        await stream.__aenter__()
    else:
        await asyncio.to_thread(stream.__enter__)


async def heard(stream: tectum.Stream | tectum.AsyncStream) -> tectum.FrameResult:
    if isinstance(stream, tectum.AsyncStream):
        return await anext(stream)
    return await asyncio.to_thread(next, stream)


async def closed(stream: tectum.Stream | tectum.AsyncStream) -> None:
    if isinstance(stream, tectum.AsyncStream):
        await stream.close()
    else:
        stream.close()


def endless(seconds: float = 0.0) -> Iterator[tectum.Frame]:
    while True:
        yield tectum.Frame(SMALL)
        time.sleep(seconds)
