"""JPEG: colours, inks, and what surrounds the image in real files."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tectum_core.image import Unreadable, Unsupported, decode, probe

CAP = 1 << 20


def blocks(values: Sequence[tuple[int, ...]]) -> NDArray[np.uint8]:
    """Draw uniform 16×16 blocks side by side: uint8[16, 16·n, C]; JPEG keeps their middles."""
    row = np.array([values], np.uint8)
    return np.repeat(np.repeat(row, 16, axis=0), 16, axis=1)


def middles(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    return pixels[8, 8::16].astype(np.int64)


def jpeg(pixels: NDArray[np.uint8], mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    shape = pixels.shape[:2][::-1]
    Image.frombytes(mode, shape, pixels.tobytes()).save(file, "JPEG", quality=100, **options)
    return file.getvalue()


def with_segment(file: bytes, marker: int, body: bytes) -> bytes:
    """Put a segment right behind the start of the image."""
    return file[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + file[2:]


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 90), (255, 255, 255), (7, 7, 7)]
INKS = [
    (255, 0, 0, 0),
    (0, 255, 0, 0),
    (0, 0, 255, 0),
    (0, 0, 0, 255),
    (40, 90, 10, 60),
    (0, 0, 0, 0),
]
PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"optimize": True}],
)
def test_colours_come_back(options: dict[str, Any]) -> None:
    pixels = decode(jpeg(blocks(COLOURS), **options), max_pixels=CAP)

    assert pixels.shape == (16, 96, 3)
    assert np.abs(middles(pixels) - COLOURS).max() <= 3


def test_colours_stored_as_rgb_are_not_taken_for_luminance() -> None:
    file = jpeg(blocks(COLOURS), keep_rgb=True)

    assert np.abs(middles(decode(file, max_pixels=CAP)) - COLOURS).max() <= 3


def test_the_result_is_what_pillow_itself_decodes() -> None:
    file = jpeg(PHOTO, progressive=True)

    expected = np.asarray(Image.open(io.BytesIO(file)))
    np.testing.assert_array_equal(decode(file, max_pixels=CAP), expected)


def test_grey_is_repeated() -> None:
    file = jpeg(blocks([(0,), (100,), (255,)]), "L")

    assert probe(file).mode == "L"
    assert np.abs(middles(decode(file, max_pixels=CAP)) - [[0], [100], [255]]).max() <= 2


def test_inks_become_rgb() -> None:
    file = jpeg(blocks(INKS), "CMYK")

    assert b"Adobe" in file
    assert probe(file).mode == "CMYK"
    ink = np.array(INKS)
    expected = (255 - ink[:, :3]) * (255 - ink[:, 3:]) / 255
    assert np.abs(middles(decode(file, max_pixels=CAP)) - expected).max() <= 4


def test_inks_coded_as_luminance_and_chroma_become_rgb() -> None:
    # The same four planes, Adobe's marker saying that the first three are YCbCr (YCCK).
    plain = jpeg(blocks(INKS), "CMYK")
    at = plain.index(b"Adobe") + 11
    assert plain[at] == 0
    file = plain[:at] + b"\x02" + plain[at + 1 :]

    stored = 255 - np.array(INKS, np.float64)  # Adobe stores inks inverted
    luma, blue, red, key = stored.T
    # T.871's conversion gives 255 − what is stored, here and in T.872: the inks themselves.
    ink = np.stack(
        [
            luma + 1.402 * (red - 128),
            luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            luma + 1.772 * (blue - 128),
        ],
        axis=1,
    )
    expected = (255 - ink.clip(0, 255)) * key[:, None] / 255
    assert np.abs(middles(decode(file, max_pixels=CAP)) - expected).max() <= 4


def test_a_damaged_exif_block_does_not_spoil_the_picture() -> None:
    file = jpeg(PHOTO)
    expected = decode(file, max_pixels=CAP)

    for tiff in (
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 50,
    ):
        spoiled = with_segment(file, 0xE1, b"Exif\0\0" + tiff)
        np.testing.assert_array_equal(decode(spoiled, max_pixels=CAP), expected)
        assert probe(spoiled).orientation == 1


def test_what_is_not_pixels_changes_nothing() -> None:
    file = jpeg(PHOTO, progressive=True)
    expected = decode(file, max_pixels=CAP)
    thumbnail = jpeg(PHOTO[:16, :16])

    surrounded = file
    for marker, body in (
        (0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0" + thumbnail),
        (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
        (0xE2, b"ICC_PROFILE\0\x01\x09" + bytes(60_000)),
        (0xED, b"Photoshop 3.0\0" + b"8BIM" * 9),
        (0xFE, b"a comment with \xff\xd9 and \xff\xda in it"),
    ):
        surrounded = with_segment(surrounded, marker, body)
    surrounded += thumbnail + b"\xff\xda" * 5000  # a second picture, then a film

    np.testing.assert_array_equal(decode(surrounded, max_pixels=CAP), expected)


def test_fill_bytes_and_junk_between_segments_are_passed_over() -> None:
    file = jpeg(PHOTO)
    padded = file[:2] + b"\xff\xff\xff" + file[2:]
    junk = file[:20] + b"\0\0junk" + file[20:]
    assert file[20:22] == b"\xff\xdb"  # behind JFIF's segment

    for variant in (padded, junk):
        np.testing.assert_array_equal(decode(variant, max_pixels=CAP), decode(file, max_pixels=CAP))


def test_every_truncation_is_unreadable() -> None:
    for file in (jpeg(PHOTO[:16, :16]), jpeg(PHOTO[:16, :16], progressive=True)):
        for length in range(len(file)):
            with pytest.raises(Unreadable):
                decode(file[:length], max_pixels=CAP)


def test_a_scan_storm_is_refused_without_decoding_it() -> None:
    file = jpeg(PHOTO, progressive=True)
    last = file.rindex(b"\xff\xda")
    storm = file[:last] + file[last:-2] * 51 + b"\xff\xd9"

    with pytest.raises(Unsupported, match="more than the 50 scans"):
        decode(storm, max_pixels=CAP)


@pytest.mark.parametrize(
    ("marker", "process"),
    [(0xC3, "lossless"), (0xC5, "hierarchical"), (0xC9, "arithmetic-coded")],
)
def test_other_coding_processes_are_refused_by_name(marker: int, process: str) -> None:
    file = jpeg(PHOTO)
    at = file.index(b"\xff\xc0")
    changed = file[: at + 1] + bytes([marker]) + file[at + 2 :]

    with pytest.raises(Unsupported, match=process):
        decode(changed, max_pixels=CAP)


@pytest.mark.parametrize(
    ("offset", "value", "error", "message"),
    [
        (4, b"\x0c", Unsupported, "12 bits"),
        (5, b"\0\0", Unreadable, "64×0"),
        (9, b"\x02", Unsupported, "2 channels"),
        (2, b"\0\x05", Unreadable, "3 bytes"),
    ],
)
def test_other_frame_headers_are_refused(
    offset: int, value: bytes, error: type[Exception], message: str
) -> None:
    file = bytearray(jpeg(PHOTO))
    at = file.index(b"\xff\xc0") + offset
    file[at : at + len(value)] = value

    with pytest.raises(error, match=message):
        decode(bytes(file), max_pixels=CAP)


def test_two_frame_headers_are_refused() -> None:
    # A reader that believes one of them while libjpeg believes the other is how caps are dodged.
    file = jpeg(PHOTO)
    at = file.index(b"\xff\xc0")
    frame = file[at : at + 19]

    with pytest.raises(Unreadable, match="two frame headers"):
        decode(file[:at] + frame + file[at:], max_pixels=CAP)
    with pytest.raises(Unreadable, match="no frame header"):
        probe(file[:at] + file[at + 19 :])
    with pytest.raises(Unreadable, match="4096 segments"):
        decode(file[:2] + b"\xff\xfe\0\x02" * 5000 + file[2:], max_pixels=CAP)
