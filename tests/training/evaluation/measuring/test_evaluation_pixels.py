"""Pictures as rows: small ones as they are, large ones as averages of squares."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tectum_train.evaluation.measuring.pixels import flat_pixels


def pictures(side: int, count: int = 3) -> NDArray[np.uint8]:
    drawn = np.random.default_rng(side).integers(0, 256, (count, side, side, 3))
    return drawn.astype(np.uint8)


@pytest.mark.parametrize("side", [2, 32, 63, 64])
def test_up_to_64_pixels_a_side_nothing_is_changed(side: int) -> None:
    frames = pictures(side, 300)

    rows = flat_pixels(frames, np.arange(300))

    expected = frames.reshape(300, -1).astype(np.float32) / np.float32(255)
    assert np.array_equal(rows, expected)


@pytest.mark.parametrize(("side", "factor"), [(96, 2), (128, 2), (192, 3), (224, 4), (256, 4)])
def test_larger_ones_are_averaged_over_squares(side: int, factor: int) -> None:
    frames, kept = pictures(side), side // factor

    rows = flat_pixels(frames, np.arange(3))

    squares = frames.reshape(3, kept, factor, kept, factor, 3).astype(np.float64)
    assert np.allclose(rows, squares.mean(axis=(2, 4)).reshape(3, -1) / 255, atol=1e-6)


@pytest.mark.parametrize("side", [65, 101, 134, 227])
def test_sides_that_no_factor_divides_become_64(side: int) -> None:
    frames = pictures(side)

    rows = flat_pixels(frames, np.arange(3))

    assert rows.shape == (3, 64 * 64 * 3)
    assert np.allclose(rows.mean(), frames.mean() / 255, atol=0.01)


def test_only_the_frames_asked_for_are_read_in_their_order() -> None:
    frames = pictures(8, 10)

    rows = flat_pixels(frames, np.array([7, 2, 7]))

    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(rows[1], flat_pixels(frames, np.array([2]))[0])
