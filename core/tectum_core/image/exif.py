"""EXIF orientation: the one fact of EXIF that changes pixels.

Reads a single tag with bounds on everything. Damaged EXIF means upright, never an error: it
says nothing about whether the pixels are sound.
"""

import struct

import numpy as np
from numpy.typing import NDArray

__all__ = ["orientation", "upright"]

_ORIENTATION_TAG = 0x0112
_TYPES = {3: "H", 4: "I"}  # SHORT as the standard asks, LONG as some writers have it
_PREFIX = b"Exif\0\0"


def orientation(exif: bytes) -> int:
    """Read the orientation tag from the first directory of an EXIF block.

    Args:
        exif: a TIFF structure, with or without the "Exif" prefix JPEG puts before it.

    Returns:
        1 to 8; 1 if the tag is absent, out of range, or the block is damaged.

    Source: CIPA DC-008 (Exif 2.32), section 4.6.2 and tag 274.
    """
    tiff = exif.removeprefix(_PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == _ORIENTATION_TAG:
                if kind not in _TYPES or count != 1:
                    return 1
                (value,) = struct.unpack_from(order + _TYPES[kind], tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # an offset that points outside the block
    return 1


def upright(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Turn stored rows upright.

    Args:
        pixels: uint8[h, w, 3] as stored.
        turn: EXIF orientation, 1 to 8; names where the stored first row and column belong.

    Returns:
        uint8[H, W, 3], contiguous; (H, W) is (w, h) for orientations 5 to 8.
    """
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    # After the transposition 5–8 differ from each other as 1–4 do: by which sides are swapped.
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
