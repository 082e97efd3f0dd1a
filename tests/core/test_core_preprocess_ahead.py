"""Pictures that are brought to the model's size ahead of their batch have the same bits."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tectum_core.preprocess import ImagePreprocessing, fits, fitted, preprocess, resample

CPU = torch.device("cpu")
SPECS = st.builds(
    lambda size, more, interpolation: ImagePreprocessing(
        size=size,
        resize_mode="stretch" if more is None else "center_crop",
        resize_to=None if more is None else size + more,
        interpolation=interpolation,
    ),
    st.integers(1, 40),
    st.none() | st.integers(0, 40),
    st.sampled_from(["bilinear", "bicubic"]),
)
SIDES = st.integers(1, 90)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@settings(deadline=None)
@given(SPECS, st.lists(st.tuples(SIDES, SIDES, st.booleans()), min_size=1, max_size=5))
def test_pictures_that_are_fitted_ahead_have_the_same_bits(
    how: ImagePreprocessing, sizes: list[tuple[int, int, bool]]
) -> None:
    images = [noise(height, width) for height, width, _ in sizes]
    ahead = [
        fitted(image, how, CPU) if first else image
        for image, (_, _, first) in zip(images, sizes, strict=True)
    ]

    assert torch.equal(preprocess(ahead, how, CPU), preprocess(images, how, CPU))


@settings(deadline=None)
@given(SPECS, SIDES, SIDES, st.integers(1, 4))
def test_a_clip_is_fitted_as_its_frames_are(
    how: ImagePreprocessing, height: int, width: int, frames: int
) -> None:
    clip = np.stack([noise(height, width) // (1 + frame) for frame in range(frames)])

    found = fitted(clip, how, CPU)

    assert torch.equal(found, torch.stack([fitted(frame, how, CPU) for frame in clip]))


@given(SPECS, SIDES, SIDES)
def test_what_fits_is_square_and_is_not_resampled(
    how: ImagePreprocessing, height: int, width: int
) -> None:
    untouched = resample(torch.from_numpy(noise(height, width))[None], how).dtype == torch.uint8

    assert fits(height, width, how) == (height == width and untouched)
