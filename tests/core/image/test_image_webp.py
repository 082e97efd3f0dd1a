"""WebP: lossless files against the arrays they were made of."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tectum_core.image import Unreadable, Unsupported, decode, probe

CAP = 1 << 20
RANDOM = np.random.default_rng(1)
COLOUR = RANDOM.integers(0, 256, (21, 34, 3), np.uint8)
WITH_ALPHA = RANDOM.integers(0, 256, (21, 34, 4), np.uint8)


def webp(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", **{"lossless": True, "exact": True, **options})
    return file.getvalue()


def test_lossless_colour_comes_back_exactly() -> None:
    file = webp(COLOUR)

    header = probe(file)
    assert (header.format, header.width, header.height, header.mode) == ("WebP", 34, 21, "RGB")
    np.testing.assert_array_equal(decode(file, max_pixels=CAP), COLOUR)


def test_straight_alpha_is_laid_over_black() -> None:
    file = webp(WITH_ALPHA)

    assert probe(file).mode == "RGBA"
    expected = np.floor(WITH_ALPHA[:, :, :3] * (WITH_ALPHA[:, :, 3:] / 255) + 0.5)
    np.testing.assert_array_equal(decode(file, max_pixels=CAP), expected)


def test_lossy_colour_and_lossy_alpha_come_back_nearly() -> None:
    plain = np.full((32, 32, 3), (200, 60, 30), np.uint8)
    alpha = np.dstack([plain, np.full((32, 32), 128, np.uint8)])

    colour = decode(webp(plain, lossless=False, quality=95), max_pixels=CAP)
    blended = decode(webp(alpha, lossless=False, quality=95), max_pixels=CAP)

    assert probe(webp(plain, lossless=False)).mode == "RGB"
    assert probe(webp(alpha, lossless=False)).mode == "RGBA"
    assert np.abs(colour.astype(int) - plain).max() <= 6
    assert np.abs(blended - plain * (128 / 255)).max() <= 6


def test_profiles_and_notes_change_nothing() -> None:
    file = webp(COLOUR, icc_profile=bytes(9000), xmp=b"<x/>")

    np.testing.assert_array_equal(decode(file, max_pixels=CAP), COLOUR)


def test_an_animation_is_refused() -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR), Image.fromarray(COLOUR // 2)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=50)

    assert probe(file.getvalue()).frames == 3
    with pytest.raises(Unsupported, match=r"animated.*3 frames"):
        decode(file.getvalue(), max_pixels=CAP)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("pixels", [COLOUR, WITH_ALPHA])
def test_every_truncation_is_unreadable(pixels: NDArray[np.uint8], lossless: bool) -> None:
    file = webp(pixels[:8, :8], lossless=lossless)

    for length in range(len(file) - 1):  # the last byte may be padding
        with pytest.raises(Unreadable):
            decode(file[:length], max_pixels=CAP)


def test_headers_that_contradict_each_other_are_unreadable() -> None:
    # A canvas of 5×5 announced before a picture of 34×21.
    inner = webp(COLOUR)[12:]
    canvas = struct.pack("<4sIB3xB2xB2x", b"VP8X", 10, 0, 4, 4)
    body = b"WEBP" + canvas + inner
    file = b"RIFF" + struct.pack("<I", len(body)) + body

    assert probe(file).width == 5
    with pytest.raises(Unreadable):
        decode(file, max_pixels=CAP)


def test_a_first_chunk_of_another_kind_is_unreadable() -> None:
    for inner in (
        b"",
        b"VP8L\0\0\0\0",
        b"VP8X\x01\0\0\0\0",
        b"VP8 \x0a\0\0\0" + bytes(10),
        b"JUNK" * 4,
    ):
        with pytest.raises(Unreadable):
            probe(b"RIFF\xff\0\0\0WEBP" + inner)
