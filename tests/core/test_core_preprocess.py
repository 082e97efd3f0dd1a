"""Resizing as PIL resizes, and a normalisation that can be undone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tests.bundles import SCALING, picture
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from tectum_core.preprocess import (
    ActionScaling,
    ImagePreprocessing,
    normalise,
    preprocess,
    resample,
    resize,
    resized_intrinsics,
    to_pixels,
)

CPU = torch.device("cpu")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def spec(**changes: object) -> ImagePreprocessing:
    return ImagePreprocessing.model_validate({"size": 32, **changes})


def by_pil(image: NDArray[np.uint8], how: ImagePreprocessing) -> NDArray[np.uint8]:
    """The same resize by the library everybody compares with."""
    height, width = image.shape[:2]
    if how.resize_to is None:
        target = (how.size, how.size)
    else:
        shorter = min(height, width)
        target = (height * how.resize_to // shorter, width * how.resize_to // shorter)
    picture = Image.fromarray(image)
    resized = picture.resize(target[::-1], FILTERS[how.interpolation])
    top, left = (target[0] - how.size) // 2, (target[1] - how.size) // 2
    return np.asarray(resized.crop((left, top, left + how.size, top + how.size)))


# ---------------------------------------------------------------- resizing


def camera(height: int, width: int) -> NDArray[np.uint8]:
    """Waves and a little noise, neither black nor white."""
    rows, columns = np.mgrid[0:height, 0:width, 0:3][:2]
    waves = 128 + 50 * np.sin(rows / 9 + columns / 7) + 30 * np.cos(columns / 13)
    noisy = waves + np.random.default_rng(0).normal(0, 8, waves.shape)
    return np.asarray(noisy.clip(30, 225), np.uint8)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def agreement(image: NDArray[np.uint8], how: ImagePreprocessing) -> float:
    """Share of the values that lie at most one level from PIL's."""
    ours = resize(torch.from_numpy(image)[None], how)[0].permute(1, 2, 0).numpy()
    assert ours.shape == (32, 32, 3)
    return float(np.mean(np.abs(ours.astype(int) - by_pil(image, how)) <= 1))


SIZES = [(480, 640), (100, 75), (64, 64), (33, 32), (20, 17), (32, 200)]


@pytest.mark.parametrize("crop", [{}, {"resize_mode": "center_crop", "resize_to": 36}])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_resizing_agrees_with_pil(
    size: tuple[int, int], interpolation: str, crop: dict[str, object]
) -> None:
    assert agreement(camera(*size), spec(interpolation=interpolation, **crop)) >= 0.999


@pytest.mark.parametrize("size", SIZES)
def test_bilinear_resizing_agrees_with_pil_on_pure_noise_too(size: tuple[int, int]) -> None:
    # Bicubic cannot when it enlarges: PIL clips its overshoot between its two passes.
    assert agreement(noise(*size), spec()) >= 0.999


@pytest.mark.parametrize("size", [(480, 640), (200, 150), (64, 64)])
def test_bicubic_shrinking_agrees_with_pil_on_pure_noise_too(size: tuple[int, int]) -> None:
    assert agreement(noise(*size), spec(interpolation="bicubic")) >= 0.999


def test_the_two_interpolations_differ() -> None:
    image = torch.from_numpy(camera(100, 75))[None]

    assert not torch.equal(resize(image, spec()), resize(image, spec(interpolation="bicubic")))


# ---------------------------------------------------------------- long and narrow pictures

LONG = [(3, 400), (400, 3), (1, 70), (2, 900), (900, 2)]
CROP = {"resize_mode": "center_crop", "resize_to": 36}


def whole(image: NDArray[np.uint8], how: ImagePreprocessing) -> NDArray[np.int64]:
    """What `resample` makes of all of it, rounded and then cut."""
    pixels = resample(torch.from_numpy(image)[None], how)[0].float().round().clamp(0, 255)
    top, left = (pixels.shape[1] - how.size) // 2, (pixels.shape[2] - how.size) // 2
    return pixels[:, top : top + how.size, left : left + how.size].long().numpy()


def resized(image: NDArray[np.uint8], how: ImagePreprocessing) -> NDArray[np.int64]:
    return resize(torch.from_numpy(image)[None], how)[0].long().numpy()


@pytest.mark.parametrize("crop", [{}, CROP], ids=["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", LONG)
def test_a_long_picture_is_resized_as_pil_does_it_too(
    size: tuple[int, int], interpolation: str, crop: dict[str, object]
) -> None:
    assert agreement(camera(*size), spec(interpolation=interpolation, **crop)) >= 0.999


@given(
    shorter=st.integers(1, 40),
    longer=st.integers(1, 1500),
    upright=st.booleans(),
    resize_to=st.none() | st.integers(32, 64),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
@settings(max_examples=60, deadline=None)
def test_a_picture_of_any_shape_is_the_centre_of_the_whole_one_resampled(
    shorter: int, longer: int, upright: bool, resize_to: int | None, interpolation: str
) -> None:
    image = noise(longer, shorter) if upright else noise(shorter, longer)
    mode = "stretch" if resize_to is None else "center_crop"
    how = spec(resize_mode=mode, resize_to=resize_to, interpolation=interpolation)

    difference = np.abs(resized(image, how) - whole(image, how))

    # Only what lies between two levels to the last bits of float32 may be rounded otherwise.
    assert difference.max() <= 1
    assert np.mean(difference == 0) >= 0.999


@pytest.mark.parametrize("crop", [{}, CROP], ids=["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [*SIZES, (1080, 1920), (1920, 1080), (40, 400), (400, 40)])
def test_a_picture_of_ordinary_shape_is_so_to_the_last_bit(
    size: tuple[int, int], interpolation: str, crop: dict[str, object]
) -> None:
    how, image = spec(interpolation=interpolation, **crop), noise(*size)

    assert np.array_equal(resized(image, how), whole(image, how))


@pytest.mark.parametrize("crop", [{}, CROP], ids=["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 2**14), (2**14, 1), (8, 2**14), (2**14, 8)])
def test_a_long_picture_takes_memory_for_its_own_pixels_and_the_models(
    size: tuple[int, int], interpolation: str, crop: dict[str, object]
) -> None:
    image = torch.zeros(1, *size, 3, dtype=torch.uint8)
    how = spec(interpolation=interpolation, **crop)

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        resize(image, how)

    taken = sum(max(event.self_cpu_memory_usage, 0) for event in seen.events())
    assert taken <= 10 * (image.numel() + 3 * 4 * how.size**2)


@given(st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=30)
def test_any_size_becomes_the_models(height: int, width: int) -> None:
    image = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    )

    for how in (spec(), spec(resize_mode="center_crop", resize_to=40)):
        assert resize(image, how).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_that_already_fit_are_not_touched(interpolation: str) -> None:
    image = picture(2, 32, 32)

    found = resize(torch.from_numpy(image)[None], spec(interpolation=interpolation))

    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), image)


def test_a_crop_is_cut_from_the_centre_without_resampling_what_fits() -> None:
    image = picture(3, 40, 64)
    how = spec(resize_mode="center_crop", resize_to=40)

    found = resize(torch.from_numpy(image)[None], how)

    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), image[4:36, 16:48])


def test_a_flat_picture_stays_flat() -> None:
    image = torch.full((1, 71, 53, 3), 200, dtype=torch.uint8)

    for interpolation in ("bilinear", "bicubic"):
        assert bool((resize(image, spec(interpolation=interpolation)) == 200).all())


# ---------------------------------------------------------------- batches


@given(st.lists(st.sampled_from([(32, 32), (40, 32), (32, 40), (64, 64)]), min_size=1, max_size=7))
@settings(max_examples=25)
def test_grouping_by_size_keeps_the_order(sizes: list[tuple[int, int]]) -> None:
    images = [picture(seed, *size) for seed, size in enumerate(sizes)]

    batch = preprocess(images, spec(), CPU)

    for row, image in zip(batch, images, strict=True):
        assert torch.equal(row, preprocess([image], spec(), CPU)[0])


def test_normalising_subtracts_and_divides_per_channel() -> None:
    how = spec(mean=(0.1, 0.2, 0.3), standard_deviation=(0.5, 1.0, 2.0))
    image = np.full((32, 32, 3), 51, np.uint8)  # 0.2

    found = preprocess([image], how, CPU)[0]

    wanted = torch.tensor([0.2, 0.0, -0.05]).view(3, 1, 1).expand(3, 32, 32)
    assert found.dtype == torch.float32
    assert_close(found, wanted)


@given(
    st.tuples(*[st.floats(-1, 2)] * 3),
    st.tuples(*[st.floats(0.01, 10)] * 3),
)
def test_every_level_survives_normalising_and_back(
    mean: tuple[float, float, float], deviation: tuple[float, float, float]
) -> None:
    how = spec(size=16, mean=mean, standard_deviation=deviation)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)

    assert torch.equal(to_pixels(normalise(levels, how), how), levels)


def test_pixels_beyond_the_range_are_clipped() -> None:
    values = torch.tensor([-1e6, 0.0, 1e6]).view(1, 1, 3).expand(3, 1, 3)

    assert to_pixels(values, spec())[0, 0].tolist() == [0, 128, 255]


# ---------------------------------------------------------------- specifications


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"resize_mode": "center_crop"}, "center_crop needs it"),
        ({"resize_to": 40}, "resize_to belongs to center_crop"),
        ({"resize_mode": "center_crop", "resize_to": 31}, r"resize_to \(31\) is at least size"),
        ({"size": 0}, "size"),
        ({"standard_deviation": (1, 0, 1)}, "standard_deviation"),
        ({"mean": (float("nan"), 0, 0)}, "mean"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"crop": True}, "crop"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**given)


# ---------------------------------------------------------------- the camera


@given(
    st.integers(24, 70), st.integers(24, 70),
    st.sampled_from(
        [
            {"size": 40},
            {"size": 16},
            {"size": 24, "resize_mode": "center_crop", "resize_to": 31},
        ]
    ),
)  # fmt: skip
def test_a_point_is_seen_where_the_resized_camera_projects_it(
    height: int, width: int, given_: dict[str, Any]
) -> None:
    spec_ = spec(**given_)
    # Pixels that say where they are: column in red, row in green.
    places = np.zeros((1, height, width, 3), np.uint8)
    places[0, :, :, 0] = 3 * np.arange(width)[None]
    places[0, :, :, 1] = 3 * np.arange(height)[:, None]
    camera = torch.tensor([30.0, 28.0, 12.0, 11.0], dtype=torch.float64)

    seen = resize(torch.from_numpy(places), spec_)[0, :2].double() / 3
    focal, centre = resized_intrinsics(camera, height, width, spec_).split(2)

    # Each pixel of the input, projected back to a ray, meets the point that it shows.
    grid = torch.arange(spec_.size, dtype=torch.float64)
    pixels = torch.stack(torch.meshgrid(grid, grid, indexing="xy"))
    rays = (pixels - centre[:, None, None]) / focal[:, None, None]
    source = rays * camera[:2, None, None] + camera[2:, None, None]
    inner = slice(4, -4)  # about the border less is averaged
    assert (seen - source)[:, inner, inner].abs().max() < 0.5


def test_a_camera_of_the_models_size_stays_as_it_is() -> None:
    camera = torch.rand(3, 5, 4) * 40

    assert torch.equal(resized_intrinsics(camera, 32, 32, spec(size=32)), camera)


def test_halved_pictures_have_half_the_lens_and_the_middle_where_it_was() -> None:
    camera = torch.tensor([40.0, 60.0, 15.5, 20.0])

    halved = resized_intrinsics(camera, 32, 64, spec(size=16))

    assert halved.tolist() == [10.0, 30.0, 3.5, 9.75]  # the first pixel's middle is at 0


# ---------------------------------------------------------------- actions


@given(st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 4), min_size=1, max_size=5))
def test_restoring_undoes_standardising(rows: list[tuple[float, ...]]) -> None:
    actions = torch.tensor(rows)

    assert_close(SCALING.restore(SCALING.standardise(actions)), actions, rtol=1e-5, atol=1e-4)


def test_standardised_actions_have_mean_zero_and_spread_one() -> None:
    mean, spread = torch.tensor(SCALING.mean), torch.tensor(SCALING.standard_deviation)

    assert_close(SCALING.standardise(mean), torch.zeros(4))
    assert_close(SCALING.standardise(mean - 2 * spread), torch.full((4,), -2.0))


def test_state_has_scales_of_its_own() -> None:
    assert_close(
        SCALING.standardise_state(torch.tensor([[2.0, 0.5, 5.0]])), torch.tensor([[2.0, 0.0, 1.0]])
    )


@pytest.mark.parametrize(
    "field", ["mean", "standard_deviation", "state_mean", "state_standard_deviation"]
)
def test_every_name_has_its_numbers(field: str) -> None:
    with pytest.raises(ValidationError, match=f"{field} has 1 numbers for [34] names"):
        ActionScaling.model_validate({**SCALING.model_dump(), field: (1.0,)})
