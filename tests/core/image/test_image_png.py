"""PNG, against files written here chunk by chunk, so that every expected pixel is known exactly."""

# h×w pixels, C channels

import itertools
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tectum_core.image import Unreadable, Unsupported, decode, probe

CAP = 1 << 20
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def chunk(name: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(name + payload)
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", checksum)


def paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    return min((left, above, corner), key=lambda value: abs(estimate - value))


def filtered(rows: list[bytes], pixel_bytes: int) -> bytes:
    """Filter rows with the five filter types in turn."""
    out = bytearray()
    above = bytes(len(rows[0])) if rows else b""
    for number, row in enumerate(rows):
        kind = number % 5
        out.append(kind)
        for at, value in enumerate(row):
            left = row[at - pixel_bytes] if at >= pixel_bytes else 0
            corner = above[at - pixel_bytes] if at >= pixel_bytes else 0
            guess = (0, left, above[at], (left + above[at]) // 2, paeth(left, above[at], corner))
            out.append((value - guess[kind]) & 255)
        above = row
    return bytes(out)


def packed(samples: NDArray[Any], depth: int) -> list[bytes]:
    """Pack [h, w, C] samples of `depth` bits into rows of bytes."""
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in samples]
    if depth == 8:
        return [row.astype(np.uint8).tobytes() for row in samples]
    bits = (samples[:, :, 0, None] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]


def png(
    samples: NDArray[Any],
    colour: int,
    depth: int = 8,
    *,
    before: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
    pieces: int = 1,
) -> bytes:
    """Write [h, w, C] samples; `before` and `after` are chunks around the pixel data."""
    height, width, channels = samples.shape
    pixel_bytes = max(1, channels * depth // 8)
    grids = [samples]
    if interlaced:
        grids = [samples[top::down, left::right] for top, left, down, right in ADAM7]
    stream = zlib.compress(
        b"".join(filtered(packed(grid, depth), pixel_bytes) for grid in grids if grid.size)
    )
    cuts = [len(stream) * n // pieces for n in range(pieces + 1)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            before,
            *(chunk(b"IDAT", stream[a:b]) for a, b in itertools.pairwise(cuts)),
            after,
            chunk(b"IEND", b""),
        )
    )


def drawn(channels: int, depth: int, *, height: int = 13, width: int = 11) -> NDArray[Any]:
    random = np.random.default_rng(channels * 100 + depth)
    return random.integers(0, 1 << depth, (height, width, channels))


def rounded(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.floor(values + 0.5).astype(np.uint8)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_is_scaled_to_eight_bits_with_rounding(
    depth: int, interlaced: bool
) -> None:
    samples = drawn(1, depth)

    pixels = decode(png(samples, GREY, depth, interlaced=interlaced), max_pixels=CAP)

    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(
        pixels, np.repeat(rounded(samples / ((1 << depth) - 1) * 255), 3, axis=2)
    )


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_colour_keeps_its_values_and_sixteen_bits_are_rounded_not_cut(
    depth: int, interlaced: bool
) -> None:
    samples = drawn(3, depth)

    pixels = decode(png(samples, RGB, depth, interlaced=interlaced), max_pixels=CAP)

    np.testing.assert_array_equal(pixels, rounded(samples / ((1 << depth) - 1) * 255))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(("colour", "channels"), [(GREY_ALPHA, 2), (RGBA, 4)])
def test_straight_alpha_is_laid_over_black(colour: int, channels: int, depth: int) -> None:
    samples = drawn(channels, depth, height=40, width=40)
    opaque = (1 << depth) - 1

    pixels = decode(png(samples, colour, depth), max_pixels=CAP)

    blended = samples[:, :, :-1] / opaque * (samples[:, :, -1:] / opaque) * 255
    expected = np.broadcast_to(rounded(blended), (40, 40, 3))
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_is_looked_up_with_its_transparency(depth: int, interlaced: bool) -> None:
    samples = drawn(1, depth)
    random = np.random.default_rng(depth)
    palette = random.integers(0, 256, (1 << depth, 3), np.uint8)
    alpha = random.integers(0, 256, 1 << (depth - 1), np.uint8)  # the rest is opaque
    before = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", alpha.tobytes())

    file = png(samples, PALETTE, depth, before=before, interlaced=interlaced)
    pixels = decode(file, max_pixels=CAP)

    full = np.concatenate([alpha, np.full(256 - len(alpha), 255)])[: len(palette)]
    colours = rounded(palette * (full[:, None] / 255))
    np.testing.assert_array_equal(pixels, colours[samples[:, :, 0]])


def test_an_index_past_the_palettes_end_is_black() -> None:
    samples = np.array([[[0], [1], [2], [200]]])
    before = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))

    pixels = decode(png(samples, PALETTE, before=before), max_pixels=CAP)

    assert pixels.tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("colour", "channels", "depth"),
    [
        (GREY, 1, 1),
        (GREY, 1, 2),
        (GREY, 1, 4),
        (GREY, 1, 8),
        (GREY, 1, 16),
        (RGB, 3, 8),
        (RGB, 3, 16),
    ],
)
def test_the_one_colour_declared_transparent_becomes_black(
    colour: int, channels: int, depth: int
) -> None:
    samples = drawn(channels, depth) | 1
    samples[3, 4] = samples[7, 2] = key = samples[5, 5]
    before = chunk(b"tRNS", key.astype(">u2").tobytes())

    pixels = decode(png(samples, colour, depth, before=before), max_pixels=CAP)

    expected = rounded(samples / ((1 << depth) - 1) * 255)
    expected[(samples == key).all(axis=2)] = 0
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))
    assert not pixels[3, 4].any()


def test_pixel_data_may_come_in_many_chunks_among_others() -> None:
    samples = drawn(3, 8)
    text = chunk(b"tEXt", b"Comment\0" + b"x" * 5000)

    pixels = decode(png(samples, RGB, before=text, after=text, pieces=40), max_pixels=CAP)

    np.testing.assert_array_equal(pixels, samples)


def test_compressed_text_and_profiles_are_never_inflated() -> None:
    bomb = zlib.compress(bytes(100 << 20), 9)
    before = chunk(b"zTXt", b"Comment\0\0" + bomb) + chunk(b"iCCP", b"profile\0\0" + bomb)
    samples = drawn(3, 8)

    tracemalloc.start()
    pixels = decode(png(samples, RGB, before=before), max_pixels=CAP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    np.testing.assert_array_equal(pixels, samples)
    assert peak < 1 << 20


def test_an_animated_png_is_refused_and_a_single_frame_of_one_is_not() -> None:
    samples = drawn(3, 8)
    still = png(samples, RGB, before=chunk(b"acTL", struct.pack(">II", 1, 0)))
    moving = png(samples, RGB, before=chunk(b"acTL", struct.pack(">II", 12, 0)))

    assert not probe(still).animated
    np.testing.assert_array_equal(decode(still, max_pixels=CAP), samples)
    assert probe(moving).frames == 12
    with pytest.raises(Unsupported, match=r"animated.*12 frames"):
        decode(moving, max_pixels=CAP)


@pytest.mark.parametrize(
    ("colour", "depth", "mode"),
    [
        (0, 1, "1"),
        (0, 8, "L"),
        (0, 16, "L;16"),
        (2, 16, "RGB;16"),
        (3, 8, "P"),
        (4, 8, "LA"),
        (6, 8, "RGBA"),
    ],
)
def test_the_header_names_how_pixels_are_stored(colour: int, depth: int, mode: str) -> None:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]

    header = probe(png(drawn(channels, depth), colour, depth))

    assert (header.format, header.width, header.height, header.mode) == ("PNG", 11, 13, mode)


def test_any_flipped_bit_in_a_chunk_that_matters_is_noticed() -> None:
    file = png(drawn(3, 8), RGB)

    for at in range(8, len(file)):
        damaged = bytearray(file)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(Unreadable):
            decode(bytes(damaged), max_pixels=1 << 62)


def test_every_truncation_is_unreadable() -> None:
    file = png(drawn(3, 8), RGB)

    for length in range(len(file)):
        with pytest.raises(Unreadable):
            decode(file[:length], max_pixels=CAP)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (png(drawn(3, 8), 7), "colour type 7"),
        (png(drawn(3, 8)[:, :0], RGB), "0×13"),
        (png(drawn(1, 8), PALETTE), "palette has 0 bytes"),
        (png(drawn(3, 8), RGB, before=chunk(b"tRNS", b"\0")), "tRNS chunk has 1 bytes"),
        (png(drawn(3, 8), RGB).replace(b"IDAT", b"IDAX"), "checksum"),
        (
            png(drawn(3, 8)[:5], RGB).replace(b"\0\0\0\x0b\0\0\0\x05", b"\0\0\0\x0b\0\0\0\x06"),
            "checksum",
        ),
    ],
)
def test_damage_is_described(file: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        decode(file, max_pixels=CAP)


def test_too_little_pixel_data_is_unreadable_even_with_good_checksums() -> None:
    header = struct.pack(">IIBBBBB", 100, 100, 8, RGB, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)

    with pytest.raises(Unreadable, match="pixel data is damaged"):
        decode(
            file + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""), max_pixels=CAP
        )
    with pytest.raises(Unreadable, match="no IDAT"):
        decode(file + chunk(b"IEND", b""), max_pixels=CAP)
    with pytest.raises(Unreadable, match="65536 chunks"):
        decode(file + chunk(b"IDAT", b"") * 70_000, max_pixels=CAP)
