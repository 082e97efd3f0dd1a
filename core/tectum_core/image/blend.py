"""Every stored colour becomes 8-bit RGB here: depth, ink, transparency.

Integer arithmetic, rounded to nearest, so that results are the same on every machine. Knows
arrays, not files.
"""

# h×w pixels, C channels

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_ink", "grey_to_rgb", "over_black", "to_8_bits"]


def to_8_bits(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Scale uint16[…] to uint8[…]: 65535 → 255, i.e. v / 257, rounded to nearest."""
    # 257 is odd, so no value lies half way. uint32: v + 128 would overflow uint16.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def over_black(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.uint8]:
    """Lay straight (not premultiplied) alpha over black.

    Args:
        colour: uint8 or uint16 [h, w, C], C 1 or 3.
        alpha: [h, w] of the same type; its greatest value is opaque.

    Returns:
        uint8[h, w, C], colour·alpha rounded once, at the end.
    """
    opaque = int(np.iinfo(colour.dtype).max)
    scale = opaque * (opaque // 255)  # back to 8 bits in the same division
    wide: Any = np.uint16 if opaque == 255 else np.uint64  # holds opaque² + scale / 2
    result = np.empty(colour.shape, np.uint8)
    wide_alpha = alpha.astype(wide)
    for channel in range(colour.shape[2]):  # one at a time: the wide copy stays a third
        product: NDArray[Any] = colour[:, :, channel].astype(wide) * wide_alpha
        product += wide(scale // 2)
        product //= wide(scale)
        result[:, :, channel] = product
    return result


def from_ink(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn uint8[h, w, 4] cyan, magenta, yellow, black (255 = full ink) into uint8[h, w, 3] RGB.

    The plain conversion (255 − C)·(255 − K) / 255; no colour profile.
    """
    return over_black(255 - ink[:, :, :3], 255 - ink[:, :, 3])


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat uint8[h, w] or uint8[h, w, 1] into three equal channels."""
    if grey.ndim == 2:
        grey = grey[:, :, np.newaxis]
    return np.repeat(grey, 3, axis=2)
