"""What holds for every format: caps, orientation, names of what is refused, damage."""

import io
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

import tectum_core.image
from tectum_core.image import ImageError, TooLarge, Unreadable, Unsupported, decode, probe

CAP = 1 << 20
FORMATS = ("JPEG", "PNG", "WEBP")


def save(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    usual = {"WEBP": dict[str, Any](lossless=True), "JPEG": dict[str, Any](quality=95)}
    Image.fromarray(pixels).save(file, kind, **{**usual.get(kind, {}), **options})
    return file.getvalue()


def photo(height: int = 24, width: int = 40, channels: int = 3) -> NDArray[np.uint8]:
    shape = (height, width, channels)
    return np.random.default_rng(7).integers(0, 256, shape, np.uint8)


def bomb(side: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))


# ---------------------------------------------------------------- size


def test_a_bomb_is_refused_by_its_header_alone() -> None:
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(TooLarge, match="60000×60000 = 3600000000 pixels; allowed are 1048576"):
        decode(bomb(60_000), max_pixels=CAP)
    seconds = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert seconds < 0.05
    assert peak < 100_000


@pytest.mark.parametrize("kind", FORMATS)
def test_the_cap_counts_pixels_and_includes_its_own_value(kind: str) -> None:
    file = save(photo(24, 40), kind)

    assert decode(file, max_pixels=24 * 40).shape == (24, 40, 3)
    with pytest.raises(TooLarge, match="40×24 = 960 pixels; allowed are 959"):
        decode(file, max_pixels=24 * 40 - 1)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_cap_comes_before_the_state_of_the_pixels(kind: str) -> None:
    file = save(photo(64, 64), kind)

    with pytest.raises(TooLarge):
        decode(file[: len(file) // 2], max_pixels=100)


def test_a_cap_below_one_pixel_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="max_pixels is 0") as caught:
        decode(save(photo(), "PNG"), max_pixels=0)
    assert not isinstance(caught.value, ImageError)


def test_pillows_own_limit_neither_warns_nor_decides() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 600  # 24×40 is beyond it, but not beyond twice it
    try:
        for kind in FORMATS:
            assert decode(save(photo(), kind), max_pixels=CAP).shape == (24, 40, 3)
        Image.MAX_IMAGE_PIXELS = 100
        with pytest.raises(TooLarge):
            decode(save(photo(), "WEBP"), max_pixels=CAP)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_the_marked_corner_ends_where_the_orientation_says(kind: str, turn: int) -> None:
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16] = 255  # the first row's first column
    exif = Image.Exif()
    exif[0x0112] = turn

    file = save(stored, kind, exif=exif)
    pixels = decode(file, max_pixels=CAP)

    # Exif 2.32, tag 274: where the 0th row and the 0th column are.
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[turn]
    rows = slice(0, 16) if corner[0] == "t" else slice(-16, None)
    columns = slice(0, 16) if corner[1] == "l" else slice(-16, None)
    assert pixels[rows, columns].mean() > 250
    assert pixels.sum() < 1.05 * 16 * 16 * 3 * 255
    assert pixels.shape[:2] == ((48, 32) if turn >= 5 else (32, 48))
    header = probe(file)
    assert (header.height, header.width) == pixels.shape[:2]
    assert header.orientation == turn
    assert header.stored_size == (48, 32)


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_agrees_with_pillow_on_every_pixel(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = save(photo(), "PNG", exif=exif)

    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    pixels = decode(file, max_pixels=CAP)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("GIF", "GIF"),
        ("BMP", "BMP"),
        ("TIFF", "TIFF"),
        ("ICO", "ICO"),
        ("AVIF", "AVIF"),
        ("JPEG 2000", "JPEG2000"),
    ],
)
def test_other_formats_are_refused_by_name(name: str, kind: str) -> None:
    with pytest.raises(Unsupported, match=f"is {name}; allowed are JPEG, PNG and WebP"):
        decode(save(photo(), kind), max_pixels=CAP)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIF"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "ISO media of brand 'isom'"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns", "SVG"),
    ],
)
def test_formats_are_recognised_by_their_first_bytes(start: bytes, name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        probe(start)


def test_nothing_at_all_and_no_image_are_unreadable() -> None:
    with pytest.raises(Unreadable, match="0 bytes"):
        decode(b"", max_pixels=CAP)
    with pytest.raises(Unreadable, match="12 bytes beginning 68 65 6c 6c"):
        decode(b"hello world\n", max_pixels=CAP)


def test_errors_are_value_errors_of_three_kinds() -> None:
    assert issubclass(ImageError, ValueError)
    assert set(ImageError.__subclasses__()) == {Unreadable, Unsupported, TooLarge}
    assert set(tectum_core.image.__all__) == {
        "ImageError", "ImageHeader", "TooLarge", "Unreadable", "Unsupported", "decode", "probe",
    }  # fmt: skip


def test_decoding_never_imports_torch() -> None:
    script = "import sys, tectum_core.image; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_many_threads_get_what_one_thread_gets() -> None:
    files = [save(photo(60 + n, 80), kind) for n in range(4) for kind in FORMATS] * 4
    alone = [decode(file, max_pixels=CAP) for file in files]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda file: decode(file, max_pixels=CAP), files))

    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- damage


def sound_files() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    small = photo(17, 23)
    files = [save(small, kind, exif=exif) for kind in FORMATS]
    files += [save(small[:, :, 0], "JPEG", progressive=True), save(small, "JPEG", progressive=True)]
    files += [save(photo(17, 23, 4), "PNG"), save(photo(17, 23, 4), "WEBP", lossless=False)]
    palette = io.BytesIO()
    Image.fromarray(small).quantize(16).save(palette, "PNG", transparency=3)
    inks = io.BytesIO()
    Image.fromarray(small).convert("CMYK").save(inks, "JPEG", progressive=True)
    return [*files, palette.getvalue(), inks.getvalue()]


SOUND = sound_files()
STARTS = (
    b"",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"\xff\xd8\xff",
    b"RIFF\x40\0\0\0WEBPVP8",
    b"\0\0\0\0ftyp",
)


def decodes_or_says_why(data: bytes) -> bool:
    """Whether there are pixels as the header says, or an error with words; others are raised."""
    try:
        pixels = decode(data, max_pixels=1 << 16)
    except ImageError as error:
        return bool(str(error))
    header = probe(data)
    return pixels.shape == (header.height, header.width, 3) and pixels.dtype == np.uint8


@given(st.sampled_from(STARTS), st.binary(max_size=400))
@settings(max_examples=400, deadline=2000)
def test_random_bytes_raise_nothing_but_image_errors(start: bytes, rest: bytes) -> None:
    assert decodes_or_says_why(start + rest)


@given(st.sampled_from(SOUND), st.data())
@settings(max_examples=600, deadline=2000)
def test_damaged_files_raise_nothing_but_image_errors(file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(file)
    # Headers and segments lie at the front: most flips there.
    places = st.one_of(st.integers(0, min(200, len(file)) - 1), st.integers(0, len(file) - 1))
    for at in data.draw(st.lists(places, max_size=6)):
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))

    assert decodes_or_says_why(bytes(damaged[:cut]))


@given(st.sampled_from(SOUND), st.sampled_from(SOUND), st.data())
@settings(max_examples=200, deadline=2000)
def test_spliced_files_raise_nothing_but_image_errors(
    first: bytes, second: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(first)))
    join = data.draw(st.integers(0, len(second)))

    assert decodes_or_says_why(first[:cut] + second[join:])
