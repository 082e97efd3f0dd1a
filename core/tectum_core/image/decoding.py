"""From bytes to upright RGB: recognise, check, decode, turn."""

import numpy as np
from numpy.typing import NDArray

from tectum_core.image import exif, jpeg, png, webp
from tectum_core.image.errors import Unsupported
from tectum_core.image.header import ImageHeader, check_size, recognise

__all__ = ["decode", "probe"]

_FORMATS = {"JPEG": jpeg, "PNG": png, "WebP": webp}


def probe(data: bytes) -> ImageHeader:
    """Read what an image says about itself; costs microseconds and decodes no pixel.

    A truncated or damaged image may still have a sound header.

    Args:
        data: a JPEG, PNG or WebP file.

    Raises:
        Unreadable: no known image, or its header is damaged.
        Unsupported: a format or variant that is not decoded here; the message names it.
    """
    header: ImageHeader = _FORMATS[recognise(data)].probe(data)
    return header


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one still image to upright RGB.

    Grey is repeated, palettes are looked up, transparency is laid over black, 16 bits are scaled
    to 8 with rounding, CMYK becomes RGB, and the EXIF orientation is applied.

    Args:
        data: a JPEG, PNG or WebP file.
        max_pixels: width × height allowed, at least 1; checked before any pixel is decoded.

    Returns:
        uint8[H, W, 3], contiguous and writable, with (H, W) as `probe` has them.

    Raises:
        Unreadable: empty, truncated or damaged data, or no known image.
        Unsupported: another format, an animation, or a variant that is refused; named.
        TooLarge: the header announces more than `max_pixels`.
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels is {max_pixels}; allowed are 1 and more")
    header = probe(data)
    check_size(header, max_pixels)
    if header.animated:
        raise Unsupported(
            f"the {header.format} is animated ({header.frames} frames); allowed are still images"
        )
    return exif.upright(_FORMATS[header.format].decode(data), header.orientation)
