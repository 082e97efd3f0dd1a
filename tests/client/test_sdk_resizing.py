"""What a robot makes of a picture is what its worker would have made of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tectum.models import ImageInput
from tectum.resizing import resized
from tectum.vocabulary import Interpolation, ResizeMode
from tectum_core.preprocess import ImagePreprocessing, resize

HALVES = 0.02
"""Share of numbers that may lie on a half, which one rounds up and the other down."""


@st.composite
def specs(draw: st.DrawFn) -> ImagePreprocessing:
    size = draw(st.integers(1, 48))
    crop = draw(st.booleans())
    return ImagePreprocessing(
        size=size,
        resize_mode="center_crop" if crop else "stretch",
        resize_to=size + draw(st.integers(0, 20)) if crop else None,
        interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
    )


def told(spec: ImagePreprocessing) -> ImageInput:
    """The same as a worker says it."""
    return ImageInput(
        size=spec.size,
        patch_size=1,
        resize_mode=ResizeMode(spec.resize_mode),
        resize_to=spec.resize_to or 0,
        interpolation=Interpolation(spec.interpolation),
        mean=spec.mean,
        standard_deviation=spec.standard_deviation,
    )


def at_the_worker(pixels: NDArray[np.uint8], spec: ImagePreprocessing) -> NDArray[np.uint8]:
    return resize(torch.from_numpy(pixels)[None], spec)[0].permute(1, 2, 0).numpy()


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99), specs())
def test_no_number_is_off_by_more_than_a_rounding(
    height: int, width: int, seed: int, spec: ImagePreprocessing
) -> None:
    pixels = noise(height, width, seed)

    sent = resized(pixels, told(spec))
    side = spec.resize_to or spec.size

    assert sent.shape == (side, side, 3)
    seen = at_the_worker(sent, spec).astype(int)  # which resamples nothing more
    assert np.abs(seen - at_the_worker(pixels, spec)).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(480, 640), (1080, 1920), (37, 411), (3, 2000)])
@pytest.mark.parametrize(
    "spec",
    [
        ImagePreprocessing(size=224),
        ImagePreprocessing(size=64, interpolation="bicubic"),
        ImagePreprocessing(
            size=224, resize_mode="center_crop", resize_to=256, interpolation="bicubic"
        ),
        ImagePreprocessing(size=96, resize_mode="center_crop", resize_to=96),
    ],
)
def test_nearly_every_number_is_the_very_same(
    height: int, width: int, spec: ImagePreprocessing
) -> None:
    pixels = noise(height, width, 0)

    seen = at_the_worker(resized(pixels, told(spec)), spec)

    assert np.mean(seen != at_the_worker(pixels, spec)) < HALVES


def test_a_picture_of_the_models_size_is_not_touched() -> None:
    pixels = noise(64, 64, 0)

    assert resized(pixels, told(ImagePreprocessing(size=64))) is not None
    assert (resized(pixels, told(ImagePreprocessing(size=64))) == pixels).all()


def test_of_a_picture_whose_shorter_side_fits_the_centre_is_cut_out() -> None:
    pixels = noise(40, 60, 0)
    spec = ImagePreprocessing(size=20, resize_mode="center_crop", resize_to=40)

    sent = resized(pixels, told(spec))

    assert (sent == pixels[:, 10:50]).all()  # whose own centre is the whole picture's
    assert (at_the_worker(sent, spec) == pixels[10:30, 20:40]).all()


def test_one_colour_stays_that_colour() -> None:
    pixels = np.full((100, 70, 3), (3, 250, 99), np.uint8)

    assert (resized(pixels, told(ImagePreprocessing(size=31))) == (3, 250, 99)).all()
