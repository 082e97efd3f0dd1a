"""Pictures that are brought to the model's size ahead of their batch have the same bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tectum_core import preprocess as preprocess_module
from tectum_core.preprocess import (
    ImagePreprocessing,
    fits,
    fitted,
    preprocess,
    resample,
    resize,
    resize_on,
    shared_bytes,
)

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


# ---------------------------------------------------------------- where a device cannot


def torchs(source: int, target: int, reach: int) -> int:
    """Weights of one pixel, as torch counts them, in float32."""
    scale = np.float32(source) / np.float32(target)
    support = np.float32(reach) * max(scale, np.float32(1))
    return 2 * math.ceil(support) + 1


@settings(max_examples=300, deadline=None)
@given(SPECS, st.integers(1, 4000), st.integers(1, 4000))
@example(ImagePreprocessing(size=32, interpolation="bicubic"), 1080, 1921)
def test_the_memory_that_shrinking_takes_is_torchs_formula(
    how: ImagePreprocessing, height: int, width: int
) -> None:
    reach = 2 if how.interpolation == "bicubic" else 1
    asked: list[tuple[torch.Size, tuple[int, int]]] = []

    def interpolate(pixels: torch.Tensor, target: tuple[int, int], **_: object) -> torch.Tensor:
        asked.append((pixels.shape, target))
        return pixels.new_empty(*pixels.shape[:2], *target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.functional, "interpolate", interpolate)
        resize(torch.empty(1, height, width, 3, dtype=torch.uint8, device="meta"), how)

    for (*_, rows, columns), (to_rows, to_columns) in asked:
        down, across = torchs(rows, to_rows, reach), torchs(columns, to_columns, reach)
        wanted, found = 4 * (32 * across + 33 * down), shared_bytes(height, width, how)
        assert wanted <= found <= wanted + 2 * 4 * 65  # what torch's own rounding may take off


@pytest.mark.parametrize(
    ("height", "width", "where"),
    [(1080, 1920, "meta"), (1080, 1921, "cpu"), (1921, 1080, "cpu"), (24, 24, "meta")],
)
def test_what_a_device_cannot_shrink_so_far_is_shrunk_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, where: str
) -> None:
    how, meta = ImagePreprocessing(size=32, interpolation="bicubic"), torch.device("meta")
    seen: list[str] = []

    def resized(images: torch.Tensor, spec: ImagePreprocessing) -> torch.Tensor:
        seen.append(images.device.type)
        return images

    monkeypatch.setattr(preprocess_module, "_BOUNDED", "meta")
    monkeypatch.setattr(preprocess_module, "resize", resized)

    found = resize_on(torch.empty(1, height, width, 3, dtype=torch.uint8), how, meta)

    assert (seen, found.device.type) == ([where], "meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("width", [1900, 1920, 1921, 1936, 4000, 4096])
def test_on_a_gpu_pictures_of_any_size_are_resized(width: int, mode: str) -> None:
    how = ImagePreprocessing.model_validate({"size": 32, "interpolation": mode})
    one = noise(1080, width)

    found = fitted(one, how, torch.device("cuda")).cpu().int()

    assert int((found - fitted(one, how, CPU).int()).abs().max()) <= 1
