"""Pictures to ask with."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tectum_cli.load.pictures import ENCODINGS, drawn, encoded, sides


def test_pictures_are_as_wide_and_high_as_asked_and_differ() -> None:
    first, second = drawn(48, 32, 2, seed=0)

    assert first.shape == (32, 48, 3)
    assert np.abs(first.astype(int) - second).mean() > 10
    assert np.array_equal(first, drawn(48, 32, 2, seed=0)[0])


def test_a_jpeg_of_one_is_as_large_as_of_a_photograph() -> None:
    (picture,) = drawn(640, 480, 1, seed=0)

    bits = 8 * len(encoded(picture, "jpeg")) / (640 * 480)

    assert 0.5 < bits < 4


@pytest.mark.parametrize("kind", ENCODINGS)
def test_every_encoding_holds_the_picture(kind: str) -> None:
    (picture,) = drawn(320, 240, 1, seed=0)

    found = encoded(picture, kind)

    if isinstance(found, bytes):
        found = np.asarray(Image.open(io.BytesIO(found)).convert("RGB"))
    assert np.abs(found.astype(int) - picture).mean() < 8


@pytest.mark.parametrize(
    ("text", "found"), [("224", (224, 224)), ("640x480", (640, 480)), ("2X3", (2, 3))]
)
def test_sides_are_read(text: str, found: tuple[int, int]) -> None:
    assert sides(text) == found


@pytest.mark.parametrize("text", ["", "x", "640x", "0", "1x2x3", "-4", "9000", "640x9000", "1.5"])
def test_sides_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="found .*allowed: "):
        sides(text)
