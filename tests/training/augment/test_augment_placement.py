"""Placements: pixels and the camera's own numbers move by one map."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.geometry.transform import warp_affine
from torch import Tensor

from tectum_train.augment import Draws, Placement
from tectum_train.augment.placement import crop_moments

SIDE, SAMPLES = 24, 6
SEEDS = st.integers(0, 2**32)


def draws(seed: int, samples: int = SAMPLES) -> Draws:
    index = np.arange(samples)
    return Draws(seed, np.zeros_like(index), index)


def places() -> Tensor:
    """Pixels that say where they are, from -1 to 1: column in red, row in green."""
    line = torch.linspace(-1, 1, SIDE)
    columns, rows = line.expand(SIDE, SIDE), line[:, None].expand(SIDE, SIDE)
    one = torch.stack([columns, rows, torch.zeros_like(rows)])
    return one.expand(SAMPLES, 1, 3, SIDE, SIDE)


def seen(pixels: Tensor) -> Tensor:
    """Which source pixels lie under a view's pixels: float[B, 2, S, S]."""
    return (pixels[:, 0, :2] + 1) / 2 * (SIDE - 1)


def inner(source: Tensor, reach: Tensor) -> Tensor:
    """Where neither coordinate repeats the border, which a pixel is made of so far about it."""
    return ((source > reach - 1) & (source < SIDE - reach)).all(dim=1)


def kinds(seed: int, mirror: bool) -> list[Placement]:
    made = [
        Placement.moved(draws(seed), SIDE, 3, 0.2),
        Placement.cropped(draws(seed), "view", SIDE, 16, (0.2, 1.0)),
    ]
    made.append(Placement.cropped(draws(seed), "one", SIDE, SIDE, (0.2, 1.0)).then(made[0]))
    which = torch.arange(SAMPLES) % 2 == 0
    return [one.mirrored(which) for one in made] if mirror else made


@given(SEEDS, st.booleans())
def test_every_pixel_comes_from_where_the_map_says(seed: int, mirror: bool) -> None:
    for placement in kinds(seed, mirror):
        found = seen(placement.applied(places()))
        side = placement.side
        grid = torch.arange(side, dtype=torch.float64)
        view = torch.stack([grid.expand(side, side), grid[:, None].expand(side, side)])

        source = (view - placement.offset[:, :, None, None]) / placement.scale[:, :, None, None]

        reach = (1 / placement.scale.abs()).clamp(min=1)[:, :, None, None]
        kept = inner(source, reach)
        assert kept.any()
        wrong = (found - source).abs()
        larger = (reach == 1).expand(wrong.shape) & kept[:, None]
        smaller = (reach > 1).expand(wrong.shape) & kept[:, None]
        assert wrong[larger].numpy().max(initial=0) < 0.001
        # A triangle over pixels is not quite as heavy on both sides of its middle.
        assert wrong[smaller].numpy().max(initial=0) < 0.1


@given(SEEDS, st.booleans())
def test_a_point_is_seen_where_the_moved_camera_projects_it(seed: int, mirror: bool) -> None:
    camera = torch.tensor([30.0, 28.0, 11.0, 12.5]).expand(SAMPLES, 4)
    ray = torch.tensor([0.05, -0.04])  # x/z and y/z of a point before the camera
    pixel = camera[:, :2] * ray + camera[:, 2:]
    for placement in kinds(seed, mirror):
        moved = placement.intrinsics(camera)

        expected = placement.scale * pixel + placement.offset

        # In a mirrored picture the camera looks at the mirrored point, through the same lens.
        turned = ray * torch.where(placement.flipped[:, None], torch.tensor([-1.0, 1.0]), 1.0)
        assert torch.allclose((moved[:, :2] * turned + moved[:, 2:]).double(), expected, atol=1e-4)
        assert (moved[:, :2] > 0).all()


def test_a_mirror_changes_nothing_of_a_camera_but_the_side_of_its_middle() -> None:
    camera = torch.tensor([30.0, 28.0, 11.0, 12.5]).expand(SAMPLES, 4)
    still = Placement.moved(draws(0), SIDE, 0, 0.0)

    turned = still.mirrored(torch.ones(SAMPLES, dtype=torch.bool))

    assert turned.flipped.all()
    assert not still.flipped.any()
    assert turned.intrinsics(camera)[0].tolist() == [30, 28, SIDE - 1 - 11, 12.5]


def test_a_clips_cameras_and_places_move_like_its_frames() -> None:
    placement = Placement.moved(draws(1), SIDE, 3, 0.1)
    camera, unit = torch.rand(SAMPLES, 5, 4), torch.ones(2)

    moved, places = placement.intrinsics(camera), placement.places(camera[..., :2], unit, unit)

    assert torch.equal(moved[:, 2], placement.intrinsics(camera[:, 2]))
    assert torch.equal(places[:, 2], placement.places(camera[:, 2, :2], unit, unit))


@given(SEEDS, st.booleans(), st.floats(0.01, 100), st.floats(-50, 50))
def test_places_in_any_unit_go_where_their_pixels_go(
    seed: int, mirror: bool, unit: float, first: float
) -> None:
    whole = [one for one in kinds(seed, mirror) if one.side == SIDE]
    pixels = SIDE * torch.rand(SAMPLES, 2, dtype=torch.float64)
    pixel = torch.tensor([unit, 1.5 * unit], dtype=torch.float64)
    middle = first + (SIDE - 1) / 2 * pixel  # the first pixel's middle is at `first`
    assert len(whole) == 2
    for placement in whole:
        expected = placement.scale * pixels + placement.offset

        moved = placement.places(first + pixels * pixel, middle, pixel)

        assert torch.allclose((moved - first) / pixel, expected, atol=1e-6)


@given(SEEDS, st.booleans())
def test_one_map_after_another_is_one_map(seed: int, mirror: bool) -> None:
    for first in kinds(seed, mirror):
        second = Placement.moved(draws(seed + 1), first.side, 2, 0.3)
        camera = torch.rand(SAMPLES, 4, dtype=torch.float64)

        both = first.then(second)

        assert torch.allclose(
            both.intrinsics(camera), second.intrinsics(first.intrinsics(camera)), atol=1e-9
        )
        assert torch.equal(both.flipped, first.flipped)


@given(SEEDS)
def test_mirroring_twice_is_not_mirroring(seed: int) -> None:
    once, all_of_them = kinds(seed, mirror=False)[1], torch.ones(SAMPLES, dtype=torch.bool)

    twice = once.mirrored(all_of_them).mirrored(all_of_them)

    assert torch.allclose(twice.scale, once.scale)
    assert torch.allclose(twice.offset, once.offset)


def test_pictures_go_as_far_across_as_they_like_however_far_they_go_down() -> None:
    many = draws(0, 2000)
    shifted = Placement.moved(many, SIDE, 3, 0.0)
    cut = Placement.cropped(many, "view", SIDE, SIDE, (0.25, 0.25), 1.0)

    for placement in (shifted, cut):
        across, down = placement.offset.numpy().T
        assert abs(np.corrcoef(across, down)[0, 1]) < 0.1


def test_mirrored_pixels_are_flipped() -> None:
    still = Placement.moved(draws(0), SIDE, 0, 0.0)

    turned = still.mirrored(torch.ones(SAMPLES, dtype=torch.bool)).applied(places())

    assert torch.allclose(turned, places().flip(-1), atol=1e-5)


@given(st.floats(0.05, 0.9), st.floats(0, 1), st.floats(1, 3))
def test_moments_of_a_crops_scale_are_those_of_many_draws(
    least: float, most: float, aspect: float
) -> None:
    area = (least, least + (1 - least) * most)

    mean, square = crop_moments(area, aspect)

    drawn = Placement.cropped(draws(0, 20_000), "view", SIDE, SIDE, area, aspect).scale.numpy()
    for axis in (0, 1):
        for found, wanted in ((drawn[:, axis], mean), (drawn[:, axis] ** 2, square)):
            assert abs(found.mean() - wanted) < 6 * found.std() / len(found) ** 0.5 + 1e-5


# ---------------------------------------------------------------- smaller and larger


def checkers(side: int) -> Tensor:
    """The finest pattern there is: every pixel unlike its neighbours."""
    grid = torch.arange(side)
    return ((grid[:, None] + grid) % 2).float().expand(1, 1, 3, side, side)


def shown(scale: float, side: int, offset: float = 0.3) -> Placement:
    return Placement(
        torch.full((1, 2), scale, dtype=torch.float64),
        torch.full((1, 2), offset, dtype=torch.float64),
        side,
    )


@given(st.floats(0.2, 0.55), st.floats(0, 5))
def test_a_pattern_too_fine_for_the_view_becomes_its_grey(scale: float, offset: float) -> None:
    view = shown(scale, int(96 * scale) - 4, offset).applied(checkers(96))

    assert (view[..., 6:-6, 6:-6] - 0.5).abs().max() < 0.07


@given(st.integers(9, 23), st.integers(0, 2**32))
def test_a_whole_picture_made_smaller_is_what_torch_makes_of_it(side: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    frames = torch.rand(2, 2, 3, SIDE, SIDE, generator=draw)
    scale = side / SIDE

    made = shown(scale, side, scale * 0.5 - 0.5)
    view = Placement(made.scale.expand(2, 2), made.offset.expand(2, 2), side).applied(frames)

    expected = torch.nn.functional.interpolate(
        frames.flatten(0, 1), (side, side), mode="bilinear", antialias=True
    )
    # Beyond the border this repeats it, and torch leaves it out.
    margin = slice(2, side - 2)
    wrong = (view.flatten(0, 1) - expected)[..., margin, margin]
    assert wrong.abs().max() < 1e-5


@given(SEEDS)
def test_what_becomes_larger_is_interpolated_between_its_neighbours(seed: int) -> None:
    placement = Placement.cropped(draws(seed), "view", SIDE, SIDE, (0.2, 0.9))
    draw = torch.Generator().manual_seed(seed)
    frames = torch.rand(SAMPLES, 1, 3, SIDE, SIDE, generator=draw)
    larger = (placement.scale >= 1).all(dim=1)
    matrix = torch.zeros(SAMPLES, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = placement.scale.float().unbind(1)
    matrix[:, :, 2] = placement.offset.float()

    warped = warp_affine(frames[:, 0], matrix, (SIDE, SIDE), padding_mode="border")

    wrong = (placement.applied(frames)[:, 0] - warped).abs().amax(dim=(1, 2, 3))
    assert wrong[larger].numpy().max(initial=0) < 1e-4


def test_whole_pixels_of_shift_move_pixels_as_they_are() -> None:
    frames = torch.rand(1, 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    view = shown(1.0, SIDE, 3.0).applied(frames)

    assert torch.equal(view[..., 3:, 3:], frames[..., :-3, :-3])
    assert torch.equal(view[..., 3:, 0], frames[..., :-3, 0])  # the border, again


@given(SEEDS)
def test_a_samples_view_is_the_same_whatever_its_batch(seed: int) -> None:
    index = np.arange(SAMPLES)
    frames = torch.rand(SAMPLES, 1, 3, SIDE, SIDE)
    alone = [Draws(seed, np.zeros(1, np.int64), index[row : row + 1]) for row in range(SAMPLES)]

    whole = Placement.cropped(draws(seed), "view", SIDE, 10, (0.05, 1.0)).applied(frames)

    for row, one in enumerate(alone):
        view = Placement.cropped(one, "view", SIDE, 10, (0.05, 1.0)).applied(frames[row : row + 1])
        assert torch.allclose(view[0], whole[row], atol=1e-6)


@given(SEEDS, st.floats(0.05, 0.9))
def test_crops_stay_inside_and_show_the_share_that_was_asked_for(seed: int, least: float) -> None:
    many = draws(seed, 200)

    placement = Placement.cropped(many, "view", SIDE, 16, (least, 1.0))

    wide = 16 / placement.scale
    first = (-0.5 - placement.offset) / placement.scale + 0.5
    assert first.min() > -1e-6
    assert (first + wide).max() < SIDE + 1e-6
    share = wide.prod(dim=1) / SIDE**2
    assert share.max() <= 1 + 1e-9
    assert share.min() > least * 0.74  # a crop too wide for the picture loses some of its area
