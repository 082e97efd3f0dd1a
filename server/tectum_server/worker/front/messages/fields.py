"""A message's fields as they lie in its bytes, one after the other, before it is unpacked.

Source of the format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["DELIMITED", "GROUPS", "Field", "as_varint", "fields"]

VARINT, EIGHT_BYTES, DELIMITED, GROUP_BEGINS, GROUP_ENDS, FOUR_BYTES = range(6)
GROUPS = {GROUP_BEGINS, GROUP_ENDS}


class Field(NamedTuple):
    """Where one lies; what is delimited has its length before it."""

    number: int
    kind: int
    """How it is written (wire type)."""
    named: int
    """Where its key ends."""
    begins: int
    """Where what it holds begins; behind a number that is written as such."""
    ends: int
    """Where it ends; beyond the message, if that is cut short."""


def fields(data: bytes | memoryview, at: int, end: int) -> Iterator[Field]:
    """What lies between two places; a group's beginning and its end are a field each.

    Raises:
        IndexError: the bytes are no fields.
    """
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        begins = ends = named = at
        if kind == VARINT:
            _, begins = _varint(data, at)
            ends = begins
        elif kind == EIGHT_BYTES:
            ends = at + 8
        elif kind == DELIMITED:
            size, begins = _varint(data, at)
            ends = begins + size
        elif kind == FOUR_BYTES:
            ends = at + 4
        elif kind not in GROUPS:
            raise IndexError("no field is written so")
        at = ends
        yield Field(key >> 3, kind, named, begins, ends)


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = shift = 0
    while data[at] > 127:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise IndexError("no number is so long")
    return value | data[at] << shift, at + 1


def as_varint(value: int) -> bytes:
    """A number as it is written."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))
