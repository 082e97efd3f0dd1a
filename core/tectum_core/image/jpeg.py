"""JPEG: segments to stored pixels.

The segments are walked here; Pillow and libjpeg get only those that make pixels. So EXIF,
profiles, comments and embedded thumbnails are never parsed by them (nothing warns), work is
bounded by a limit on scans, and data after the end of the image (the second picture of a
stereo file, a phone's short film) does not count.

Source: ITU-T T.81, annexes B (segments) and G (progressive mode); T.872 for Adobe's marker.
"""

import io
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from tectum_core.image import blend, exif
from tectum_core.image.errors import Unreadable, Unsupported
from tectum_core.image.header import ImageHeader

__all__ = ["decode", "probe"]

_MAX_SEGMENTS = 4096
_MAX_SCANS = 50
"""A progressive encoder makes about ten. Each scan costs a pass over the whole image, so that
thousands of empty ones turn a small file into minutes of work."""

_APP0, _APP1, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_SCAN, _END = 0xDA, 0xD9
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a body
_FRAMES = {
    0xC0: None,  # baseline
    0xC1: None,  # extended sequential
    0xC2: None,  # progressive
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic-coded"),
}
_FILL = re.compile(rb"\xff+")  # a marker's own byte, after any number of its like
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# Inside a scan 0xFF is followed by 0 (a literal 0xFF), a restart marker or fill bytes.
_MARKER_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)


@dataclass(slots=True)
class _Walk:
    """What the walk over the segments found."""

    frame: tuple[int, memoryview] | None = None
    """Marker and body of the frame header."""
    exif: bytes = b""
    kept: list[memoryview] = field(default_factory=list)
    """Segments before the first scan that bear on pixels, markers included."""
    scans: int = 0
    scan_start: int = 0
    """Where the first scan begins, bytes."""
    end: int = 0
    """Just behind the end-of-image marker, bytes; 0 if there was none."""


def probe(data: bytes) -> ImageHeader:
    """Read size, channels and orientation from the segments before the first scan.

    Raises:
        Unreadable: there is no frame header, or it is damaged.
        Unsupported: a coding process, bit depth or number of channels that is not decoded here.
    """
    walk = _Walk()
    try:
        _follow(data, walk, whole=False)
    except Unreadable:
        if walk.frame is None:
            raise
        # damaged further on: for `decode` to judge
    return _header(walk)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode the stored pixels; the caller has checked the size.

    Four channels are read as Adobe writes them, inverted, whether or not its marker is there,
    as browsers do.

    Returns:
        uint8[h, w, 3], not yet turned upright.

    Raises:
        Unreadable: truncated, or libjpeg gave up on it.
        Unsupported: see `probe`; or more scans than allowed.
    """
    walk = _Walk()
    _follow(data, walk, whole=True)
    header = _header(walk)
    if not walk.end or not walk.scans:
        raise Unreadable(f"the JPEG is truncated after {len(data)} bytes (no end of image)")
    scans = memoryview(data)[walk.scan_start : walk.end]
    slim = io.BytesIO(b"".join((b"\xff\xd8", *walk.kept, scans)))
    try:
        # The class, not Image.open: no other format, and no second look at stereo files.
        with JpegImagePlugin.JpegImageFile(slim) as image:
            contradiction = image.size != header.stored_size or image.mode != header.mode
            pixels = None if contradiction else np.array(image)
    # SyntaxError: Pillow's word for a malformed file. OSError: libjpeg's, and for truncation.
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable(f"the JPEG is damaged: {error}") from error
    if pixels is None:
        raise Unreadable("the JPEG's headers contradict each other")
    if header.mode == "L":
        return blend.grey_to_rgb(pixels)
    return blend.from_ink(pixels) if header.mode == "CMYK" else pixels


def _follow(data: bytes, walk: _Walk, *, whole: bool) -> None:
    """Walk over the segments and note them in `walk`: to the first scan, or over all of them."""
    view = memoryview(data)
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _FILL.search(data, position)  # past junk between segments, as libjpeg does
        if found is None or found.end() == len(data):
            return
        start = found.end() - 1
        marker = data[start + 1]
        position = start + 2
        if marker == _END:
            walk.end = position
            return
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        end = position + length
        if length < 2 or end > len(data):
            raise Unreadable(f"the JPEG is truncated or damaged in its segment at byte {start}")
        _note(walk, marker, start, view[start:end])
        if marker == _SCAN:
            if not whole:
                return
            found = _MARKER_AFTER_SCAN.search(data, end)
            if found is None:
                return
            end = found.start()
        position = end
    raise Unreadable(f"the JPEG has more than the {_MAX_SEGMENTS} segments allowed")


def _note(walk: _Walk, marker: int, start: int, segment: memoryview) -> None:
    """Note one segment (marker, length and body) that begins at byte `start`."""
    if marker == _SCAN:
        walk.scans += 1
        if walk.scans == 1:
            walk.scan_start = start
        if walk.scans > _MAX_SCANS:
            raise Unsupported(f"the JPEG has more than the {_MAX_SCANS} scans allowed")
    elif marker in _FRAMES:
        if walk.frame is not None:
            raise Unreadable("the JPEG has two frame headers; allowed is one")
        walk.frame = (marker, segment[4:])
    elif marker == _APP1 and not walk.exif and bytes(segment[4:10]) == b"Exif\0\0":
        walk.exif = bytes(segment[4:])
    # Of the application segments only JFIF's and Adobe's bear on pixels: they tell the colours.
    idle = marker == _COMMENT or (_APP0 < marker <= _APP15 and marker != _APP14)
    if not (walk.scans or idle):
        walk.kept.append(segment)


def _header(walk: _Walk) -> ImageHeader:
    """Judge the frame header."""
    if walk.frame is None:
        raise Unreadable("the JPEG has no frame header before its end or first scan")
    marker, body = walk.frame
    process = _FRAMES[marker]
    if process:
        raise Unsupported(
            f"the JPEG is {process}; allowed are baseline, extended and progressive Huffman coding"
        )
    if len(body) < 6:
        raise Unreadable(f"the JPEG's frame header has {len(body)} bytes; allowed are 6 or more")
    depth, channels = body[0], body[5]
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if depth != 8:
        raise Unsupported(f"the JPEG has {depth} bits per channel; allowed are 8")
    if channels not in _MODES:
        raise Unsupported(f"the JPEG has {channels} channels; allowed are 1, 3 and 4")
    if not (width and height):
        raise Unreadable(f"the JPEG is {width}×{height}; allowed are 1 to 65535 a side")
    turn = exif.orientation(walk.exif)
    if turn >= 5:
        width, height = height, width
    return ImageHeader("JPEG", width, height, _MODES[channels], orientation=turn)
