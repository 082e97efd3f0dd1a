"""Numpy arrays in and out of a shared segment.

All arrays of one message share one span; an array that occurs twice (a frame that two
pairs share) is written once. A reader's arrays are views: they hold only until the span
is released.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tectum_server.worker.link.arena import Arena, Span
from tectum_server.worker.link.segment import Segment

__all__ = ["ArrayRef", "pack", "packed_bytes", "place", "unpack", "write"]

_ALIGNMENT = 64
_DTYPES = ("uint8", "int8", "bool", "int32", "int64", "float16", "float32")


class ArrayRef(msgspec.Struct, frozen=True, array_like=True):
    """Where an array lies in the segment."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


def packed_bytes(arrays: Sequence[NDArray[Any]]) -> int:
    """The span that `pack` asks for."""
    once = {id(array): array.nbytes for array in arrays}
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in once.values())


def place(arrays: Sequence[NDArray[Any]], arena: Arena) -> tuple[Span, list[ArrayRef]] | None:
    """Take a span for arrays, and say where in it each goes; None if there is no room now.

    Raises:
        ValueError: an array's type is none of ours; then no room is taken.
    """
    places: dict[int, int] = {}
    total = 0
    for array in arrays:
        _check_type(array.dtype.name)
        if id(array) not in places:
            places[id(array)] = total
            total += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    span = arena.allocate(total)
    if span is None:
        return None
    return span, [
        ArrayRef(span.offset + places[id(array)], array.dtype.name, array.shape) for array in arrays
    ]


def write(arrays: Sequence[NDArray[Any]], refs: Sequence[ArrayRef], segment: Segment) -> None:
    """Copy arrays to their places."""
    for array, ref in {id(a): (a, r) for a, r in zip(arrays, refs, strict=True)}.values():
        np.copyto(unpack(ref, segment), array)


def pack(
    arrays: Sequence[NDArray[Any]], arena: Arena, segment: Segment
) -> tuple[Span, list[ArrayRef]] | None:
    """Copy arrays into one span; None if there is no room now.

    Raises:
        ValueError: an array's type is none of ours; then no room is taken.
    """
    placed = place(arrays, arena)
    if placed is not None:
        write(arrays, placed[1], segment)
    return placed


def unpack(ref: ArrayRef, segment: Segment) -> NDArray[Any]:
    """A view of the array at `ref`.

    Raises:
        ValueError: it does not lie within the segment, or its type is none of ours.
    """
    _check_type(ref.dtype)
    dtype = np.dtype(ref.dtype)
    count = math.prod(ref.shape)
    end = ref.offset + count * dtype.itemsize
    if min(ref.offset, *ref.shape, 0) < 0 or end > segment.size:
        raise ValueError("an array reference points outside its segment")
    flat: NDArray[Any] = np.frombuffer(segment.memory, dtype, count, ref.offset)
    return flat.reshape(ref.shape)


def _check_type(name: str) -> None:
    if name not in _DTYPES:
        raise ValueError(f"no array of type {name!r} crosses the link")
