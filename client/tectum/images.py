"""Pictures on their way to the worker, and pixels on their way back.

Pixels travel raw and files travel as they are: the SDK decodes and encodes nothing, so it needs
no image library and cannot differ from the worker in how it reads a JPEG.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tectum.errors import invalid
from tectum.v1 import image_pb2

# H×W pixels, T frames

ImageLike = NDArray[np.uint8] | bytes | bytearray | memoryview | os.PathLike[str]
"""A picture: uint8[H, W, 3] pixels in R, G, B order, the bytes of a JPEG, PNG or WebP file, or the
path of one. A `str` is never a path."""
ClipLike = NDArray[np.uint8] | Sequence[ImageLike]
"""A clip, oldest frame first: uint8[T, H, W, 3], or its frames."""

ALLOWED = "a uint8[H, W, 3] array (RGB), the bytes of a JPEG, PNG or WebP file, or a Path to one"

"""What a picture may be, for errors."""


def describe(value: object) -> str:
    """What was found, for errors: `float32[224, 224]` or a type's name."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


def put_image(
    target: image_pb2.Image, value: ImageLike, field: str, allowed: str = ALLOWED
) -> None:
    """Write one picture into a message; the pixels are copied, so a buffer may be reused.

    In place, because protobuf copies a message that is assigned to another's field by packing
    and unpacking it, and a picture is large.

    Args:
        target: What to write into.
        value: See `ImageLike`.
        field: Where it stands in the request, for the error.
        allowed: What may stand there, for the error.

    Raises:
        InvalidInput: not a picture, an empty one, or a file that cannot be read.
    """
    if isinstance(value, np.ndarray):
        _put_pixels(target.raw, value, field, allowed)
    elif isinstance(value, bytes | bytearray | memoryview):
        target.encoded = _not_empty(bytes(value), field, allowed)
    elif isinstance(value, os.PathLike):
        try:
            content = Path(value).read_bytes()
        except OSError as error:
            problem = f"cannot read {os.fspath(value)}: {error.strerror or error}"
            raise invalid(field, problem, reason="IMAGE_UNREADABLE") from error
        target.encoded = _not_empty(content, field, allowed)
    else:
        raise invalid(
            field, f"found {describe(value)}; allowed: {allowed}", reason="SHAPE_MISMATCH"
        )


def put_images(
    add: Callable[[], image_pb2.Image], values: ClipLike | Iterable[ImageLike], field: str
) -> int:
    """Write pictures that belong together, in order.

    Args:
        add: Appends an empty picture to a message and returns it.
        values: uint8[N, H, W, 3], or an iterable of pictures.
        field: Where they stand in the request, for the error.

    Returns:
        How many there are.

    Raises:
        InvalidInput: one picture where several are wanted, none at all, or a bad one.
    """
    single = isinstance(values, bytes | bytearray | memoryview | str | os.PathLike)
    if single or (isinstance(values, np.ndarray) and values.ndim != 4):
        raise invalid(
            field,
            f"found {describe(values)}; allowed: a list of pictures, or a uint8[N, H, W, 3] array",
            reason="SHAPE_MISMATCH",
        )
    count = 0
    for value in values:
        put_image(add(), value, f"{field}[{count}]")
        count += 1
    if count == 0:
        raise invalid(field, "found none; allowed: at least one picture", reason="FIELD_MISSING")
    return count


def pixels(raw: image_pb2.RawImage) -> NDArray[np.uint8]:
    """Unpack pixels: uint8[H, W, 3], a read-only view of the message's bytes.

    Raises:
        ValueError: the bytes do not fit the shape.
    """
    array: NDArray[Any] = np.frombuffer(raw.data, dtype=np.uint8)
    if array.size != raw.height * raw.width * 3:
        raise ValueError(f"a {raw.height}×{raw.width} picture has {array.size} bytes")
    return array.reshape(raw.height, raw.width, 3)


def _put_pixels(target: image_pb2.RawImage, array: NDArray[Any], field: str, allowed: str) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        found = describe(array)
        raise invalid(field, f"found {found}; allowed: {allowed}", reason="SHAPE_MISMATCH")
    target.height, target.width, _ = array.shape
    target.data = array.tobytes()


def _not_empty(content: bytes, field: str, allowed: str) -> bytes:
    if not content:
        raise invalid(field, f"found no bytes; allowed: {allowed}", reason="IMAGE_UNREADABLE")
    return content
