"""PNG: chunks to stored pixels.

The chunk walk, checksums, palettes and transparency are done here; Pillow only inflates and
unfilters the pixel stream. So text, profiles and other ancillary chunks are never inflated
(no bombs in them), nothing warns, and 16-bit colour keeps its low bytes, which Pillow's own
PNG reader drops.

Source: W3C PNG specification, third edition.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tectum_core.image import blend, exif
from tectum_core.image.errors import Unreadable
from tectum_core.image.header import ImageHeader

__all__ = ["decode", "probe"]

_MAX_CHUNKS = 65_536  # a 400 MB picture in 8 KB pieces has 50,000; more is an attack on the walk
_MAX_SIDE = 2**31 - 1
_CHUNK_NAME = re.compile(rb"[A-Za-z]{4}")

# colour type → (name, channels, allowed bit depths); specification, table 12
_COLOUR_TYPES = {
    0: ("L", 1, (1, 2, 4, 8, 16)),
    2: ("RGB", 3, (8, 16)),
    3: ("P", 1, (1, 2, 4, 8)),
    4: ("LA", 2, (8, 16)),
    6: ("RGBA", 4, (8, 16)),
}


@dataclass(frozen=True, slots=True)
class _Header:
    """The IHDR chunk."""

    width: int
    height: int
    depth: int
    """Bits per channel (per index, with a palette)."""
    colour: str
    channels: int
    interlaced: bool

    @property
    def mode(self) -> str:
        """Name of the stored pixel, as `ImageHeader.mode` has it."""
        if self.depth == 16:
            return self.colour + ";16"
        return "1" if self.colour == "L" and self.depth == 1 else self.colour


def probe(data: bytes) -> ImageHeader:
    """Read the header, how many frames there are, and the orientation.

    Raises:
        Unreadable: the header chunk is missing or contradicts the specification.
    """
    header = _read_header(data)
    frames, turn = 1, 1
    try:
        for name, payload in _chunks(data, verify=False):
            if name == b"acTL":
                frames = max(frames, struct.unpack_from(">I", payload)[0])
            elif name == b"eXIf":
                turn = exif.orientation(bytes(payload))
    except (Unreadable, struct.error):
        pass  # truncated further on: for `decode` to judge
    width, height = header.width, header.height
    if turn >= 5:
        width, height = height, width
    return ImageHeader("PNG", width, height, header.mode, frames, turn)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode the stored pixels; the caller has checked the size.

    Returns:
        uint8[h, w, 3], not yet turned upright.

    Raises:
        Unreadable: truncated, a checksum is wrong, or the pixel stream is damaged.
    """
    header = _read_header(data)
    parts: dict[bytes, list[memoryview]] = {}
    for name, payload in _chunks(data, verify=True):
        if name in (b"IDAT", b"PLTE", b"tRNS"):
            parts.setdefault(name, []).append(payload)
    if b"IDAT" not in parts:
        raise Unreadable("the PNG has no pixel data (no IDAT chunk)")
    stream = b"".join(parts[b"IDAT"])
    transparent = bytes(parts.get(b"tRNS", [b""])[0])
    if header.colour == "P":
        return _through_palette(
            _inflate(header, stream, "P"), bytes(parts.get(b"PLTE", [b""])[0]), transparent
        )
    samples = _samples(header, stream)
    if header.colour in ("LA", "RGBA"):
        result = blend.over_black(samples[:, :, :-1], samples[:, :, -1])
    else:
        result = blend.to_8_bits(samples) if header.depth == 16 else samples
        if transparent:
            result = result * ~_keyed(header, samples, transparent)[:, :, np.newaxis]
    return blend.grey_to_rgb(result) if result.shape[2] == 1 else result


def _read_header(data: bytes) -> _Header:
    """Read IHDR, which must come first."""
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        raise Unreadable("the PNG does not begin with a whole IHDR chunk")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(
        ">IIBBBBB", data, 16
    )
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise Unreadable(f"the PNG is {width}×{height}; allowed are 1 to {_MAX_SIDE} a side")
    name, channels, depths = _COLOUR_TYPES.get(colour, ("", 0, ()))
    if depth not in depths or compression or filtering or interlace > 1:
        raise Unreadable(
            f"the PNG has colour type {colour}, bit depth {depth}, compression {compression}, "
            f"filter method {filtering}, interlace {interlace}: no such combination exists"
        )
    return _Header(width, height, depth, name, channels, bool(interlace))


def _chunks(data: bytes, *, verify: bool) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (name, payload) up to IEND; with `verify`, checksums too."""
    view = memoryview(data)
    position = 8
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(data):
            raise Unreadable(f"the PNG is truncated after {len(data)} bytes (no IEND chunk)")
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        end = position + 8 + length
        if not _CHUNK_NAME.fullmatch(name):
            raise Unreadable(f"the PNG is damaged at byte {position}: no chunk begins there")
        if end + 4 > len(data):
            raise Unreadable(
                f"the PNG is truncated after {len(data)} bytes, inside its {name.decode()} chunk"
            )
        if (
            verify
            and zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]
        ):
            raise Unreadable(f"the checksum of the PNG's {name.decode()} chunk is wrong")
        yield name, view[position + 8 : end]
        if name == b"IEND":
            return
        position = end + 4
    raise Unreadable(f"the PNG has more than the {_MAX_CHUNKS} chunks allowed")


def _inflate(header: _Header, stream: bytes, mode: str, layout: str = "") -> NDArray[np.uint8]:
    """Inflate and unfilter the pixel stream with Pillow's "zip" decoder.

    Args:
        header: of this image.
        stream: the zlib stream.
        mode: Pillow mode of the result.
        layout: Pillow's name for how the bits lie in the stream; default, by the bit depth.
    """
    if not layout:
        layout = mode if header.depth >= 8 else f"{mode};{header.depth}"
    size = (header.width, header.height)
    try:
        # ValueError: too little data, a broken zlib stream, or an unknown filter.
        image = Image.frombytes(mode, size, stream, "zip", layout, int(header.interlaced))
    except ValueError as error:
        raise Unreadable(f"the PNG's pixel data is damaged: {error}") from error
    return np.array(image)


def _samples(header: _Header, stream: bytes) -> NDArray[Any]:
    """Decode anything but a palette: uint8 (1–4 bits scaled to 8) or uint16 [h, w, channels]."""
    shape = (header.height, header.width, header.channels)
    if header.depth < 8:
        if header.depth == 1:
            return (_inflate(header, stream, "1", "1") * np.uint8(255)).reshape(shape)
        return _inflate(header, stream, "L").reshape(shape)
    if header.depth == 8:
        return _inflate(header, stream, header.colour).reshape(shape)
    if header.colour == "L":
        return _inflate(header, stream, "I;16", "I;16B").astype(np.uint16).reshape(shape)
    # Pillow has no 16-bit colour, only layouts that keep one byte of the two: take the high
    # bytes as such, and the low ones by claiming the other byte order. Grey with alpha fits
    # whole into four 8-bit channels, because the filters work on bytes per pixel.
    if header.colour == "LA":
        pairs = _inflate(header, stream, "RGBA", "RGBA").reshape(*shape, 2)
        high, low = pairs[..., 0], pairs[..., 1]
    else:
        high = _inflate(header, stream, header.colour, header.colour + ";16B")
        low = _inflate(header, stream, header.colour, header.colour + ";16L")
    return high.astype(np.uint16) << 8 | low


def _keyed(header: _Header, samples: NDArray[Any], key: bytes) -> NDArray[np.bool_]:
    """Find the pixels of the one colour that tRNS declares transparent: bool[h, w]."""
    if len(key) != 2 * header.channels:
        raise Unreadable(f"the PNG's tRNS chunk has {len(key)} bytes, not {2 * header.channels}")
    colour = np.frombuffer(key, ">u2").astype(np.uint32)
    colour &= (1 << header.depth) - 1  # "only the least significant bits are used"
    if header.depth < 8:
        colour *= 255 // ((1 << header.depth) - 1)
    matched: NDArray[np.bool_] = (samples == colour).all(axis=2)
    return matched


def _through_palette(
    indices: NDArray[np.uint8], palette: bytes, transparent: bytes
) -> NDArray[np.uint8]:
    """Look indices [h, w] up: uint8[h, w, 3]. Indices past the palette's end are black."""
    if not palette or len(palette) % 3 or len(palette) > 768:
        raise Unreadable(f"the PNG's palette has {len(palette)} bytes; allowed are 3 to 768 by 3")
    colours = np.zeros((1, 256, 3), np.uint8)
    colours[0, : len(palette) // 3] = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    alpha = np.full((1, 256), 255, np.uint8)
    listed = np.frombuffer(transparent[:256], np.uint8)
    alpha[0, : len(listed)] = listed
    return np.ascontiguousarray(blend.over_black(colours, alpha)[0][indices])
