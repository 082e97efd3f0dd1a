"""Bytes and arrays as JSON can carry them, both ways.

Pictures come in as base64 of a file and go out as base64 PNG; vectors are lists of numbers or
base64 of their little-endian bytes; NaN, which JSON has no word for, becomes null.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, WithJsonSchema

import tectum
from tectum_server.gateway import png
from tectum_server.gateway.wrong import NOT_FINITE, wrong

EncodingFormat = Literal["float", "base64"]
"""How vectors are written: a list of numbers, or base64 of their little-endian bytes."""

MAX_LISTED = 1_000_000
"""Numbers in one answer's vectors that are lists: about a fifth of a second's work."""
WIRE_TYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1"}
"""How each vector type lies in bytes."""

_DATA_URI = re.compile(r"data:[\w.+/-]*(;[\w=.+-]+)*;base64,", re.ASCII)
_LONGEST_PREFIX = 256
"""Characters of a data URI before its content."""
_SPACE = b" \t\r\n\f\v"


def decode(text: str) -> bytes:
    """The bytes behind base64; line breaks are allowed.

    Raises:
        ValueError: not base64.
    """
    try:
        # A regular expression would take seconds for what this does in a tenth of one.
        packed = text.encode("ascii").translate(None, _SPACE)
        return binascii.a2b_base64(packed, strict_mode=True)
    except ValueError as error:
        raise ValueError(f"not base64: {error}") from None


def decode_image(value: Any) -> bytes:
    """The file behind a picture in a request: base64, or a data URI of it.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("allowed: base64 of a JPEG, PNG or WebP file, or a data URI of it")  # noqa: TRY004 - pydantic's way
    uri = _DATA_URI.match(value, 0, _LONGEST_PREFIX)
    content = decode(value[uri.end() :] if uri else value)
    if not content:
        described = "found no bytes; allowed: base64 of a JPEG, PNG or WebP file"
        raise wrong(described, reason="FIELD_MISSING")
    return content


Picture = Annotated[
    bytes,
    PlainValidator(decode_image),
    WithJsonSchema(
        {
            "type": "string",
            "contentEncoding": "base64",
            "description": "A JPEG, PNG or WebP file as base64; a `data:` URI is accepted.",
        }
    ),
]
"""A picture in a request."""


def picture(pixels: NDArray[np.uint8]) -> str:
    """Pixels as base64 PNG; uint8[H, W, 3]."""
    return base64.b64encode(png.encode(pixels)).decode()


def numbers(array: NDArray[Any]) -> list[Any]:
    """An array as nested lists, NaN as None."""
    if array.dtype.kind == "f" and np.isnan(array).any():
        missing = np.isnan(array)
        array = array.astype(object)
        array[missing] = None
    nested: list[Any] = array.tolist()
    return nested


def check_listed(vectors: Iterable[NDArray[Any]], encoding: EncodingFormat) -> None:
    """Refuse to write more numbers as a list than the gateway can without stalling its others.

    Raises:
        InvalidInput: more than `MAX_LISTED`.
    """
    count = sum(values.size for values in vectors)
    if encoding == "float" and count > MAX_LISTED:
        description = f"found {count} numbers; allowed: {MAX_LISTED}, or base64 for any number"
        violation = tectum.Violation("encoding_format", description)
        raise tectum.InvalidInput(
            f"encoding_format: {description}",
            reason="FIELD_OUT_OF_RANGE",
            violations=[violation],
        )


def vector(values: NDArray[Any], encoding: EncodingFormat) -> list[Any] | str:
    """A vector as it was asked for."""
    if encoding == "float":
        return numbers(values)
    return base64.b64encode(values.astype(WIRE_TYPES[str(values.dtype)]).tobytes()).decode()


def parse_vector(values: list[float] | str, data_type: str) -> NDArray[Any]:
    """A vector from a request.

    Args:
        values: Numbers, or base64 of the vector's little-endian bytes.
        data_type: `float32`, `float16` or `int8`.

    Raises:
        ValueError: not base64, not a whole number of elements, a number outside the type, or one
            that is none.
    """
    dtype = np.dtype(WIRE_TYPES[data_type])
    if isinstance(values, str):
        content = decode(values)
        if len(content) % dtype.itemsize:
            described = f"found {len(content)} bytes; allowed: a multiple of {dtype.itemsize}"
            raise wrong(described, reason="SHAPE_MISMATCH")
        return _finite(np.frombuffer(content, dtype)).astype(dtype.newbyteorder("="))
    exact = _finite(np.asarray(values, np.float64))
    if dtype.kind == "i" and not (np.abs(exact) <= np.iinfo(dtype).max).all():
        raise ValueError("found a number outside −127 to 127, which int8 vectors are made of")
    if dtype.kind == "f" and not (np.abs(exact) <= np.finfo(dtype).max).all():
        raise ValueError(f"found a number that {data_type} cannot hold")
    return exact.astype(dtype.newbyteorder("="))


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    """The same values, if all are numbers."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise wrong(NOT_FINITE, reason="NOT_FINITE", field="values")
    return values
