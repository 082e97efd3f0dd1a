"""WebP: the container's chunks, and its stored pixels through libwebp.

Source: RFC 9649.
"""

import io
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin

from tectum_core.image import blend, exif
from tectum_core.image.errors import TooLarge, Unreadable
from tectum_core.image.header import ImageHeader

__all__ = ["decode", "probe"]

_MAX_CHUNKS = 65_536
_ALPHA_FLAG = 0x10


def probe(data: bytes) -> ImageHeader:
    """Read the canvas size, how many frames there are, and the orientation.

    Raises:
        Unreadable: no header of a known kind comes first.
    """
    width = height = 0
    alpha, frames, turn = False, 0, 1
    try:
        for name, payload in _chunks(data):
            if not width:
                width, height, alpha = _canvas(name, payload)
            elif name == b"ANMF":
                frames += 1
            elif name == b"EXIF":
                turn = exif.orientation(bytes(payload))
    except (Unreadable, struct.error):
        if not width:
            raise Unreadable(f"the WebP has no whole header in its {len(data)} bytes") from None
        # truncated further on: for `decode` to judge
    if not width:
        raise Unreadable("the WebP has no chunks")
    if turn >= 5:
        width, height = height, width
    return ImageHeader("WebP", width, height, "RGBA" if alpha else "RGB", max(frames, 1), turn)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode the stored pixels; the caller has checked size and number of frames.

    Returns:
        uint8[h, w, 3], not yet turned upright.

    Raises:
        Unreadable: truncated, or libwebp gave up on it.
        TooLarge: beyond Pillow's own limit, whatever the caller allows.
    """
    width, height = probe(data).stored_size
    try:
        with WebPImagePlugin.WebPImageFile(io.BytesIO(data)) as image:
            sound = image.size == (width, height) and image.n_frames == 1
            pixels = np.array(image) if sound else None
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the WebP is {width}×{height}: {error}") from error
    # SyntaxError: Pillow's word for a malformed file. OSError and EOFError: libwebp's failures.
    except (EOFError, OSError, SyntaxError, ValueError) as error:
        raise Unreadable(f"the WebP is truncated or damaged: {error}") from error
    if pixels is None:
        raise Unreadable("the WebP's headers contradict each other")
    if pixels.shape[2] == 4:
        return blend.over_black(pixels[:, :, :3], pixels[:, :, 3])
    return pixels


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (name, payload); the last one may be cut short by the end of the data."""
    view = memoryview(data)
    position = 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            return
        (length,) = struct.unpack_from("<I", data, position + 4)
        start = position + 8
        yield data[position : position + 4], view[start : start + length]
        position = start + length + (length & 1)
    raise Unreadable(f"the WebP has more than the {_MAX_CHUNKS} chunks allowed")


def _canvas(name: bytes, payload: memoryview) -> tuple[int, int, bool]:
    """Read (width, height, has alpha) from the first chunk."""
    head = bytes(payload[:10])
    if name == b"VP8X" and len(head) == 10:
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (4, 7))
        return width, height, bool(head[0] & _ALPHA_FLAG)
    if name == b"VP8L" and head[:1] == b"\x2f":
        (bits,) = struct.unpack_from("<I", head, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    if name == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF, False
    raise Unreadable(f"the WebP's first chunk, {name!r}, is no header")
