"""Placements: pixels and the camera's own numbers move by one map."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tectum_train.augment import Draws, Placement

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


def inner(found: Tensor) -> Tensor:
    """Where neither coordinate repeats the border."""
    return ((found > 0.01) & (found < SIDE - 1.01)).all(dim=1)


def kinds(seed: int, mirror: bool) -> list[Placement]:
    made = [
        Placement.moved(draws(seed), SIDE, 3, 0.2),
        Placement.cropped(draws(seed), "view", SIDE, 16, (0.2, 1.0)),
    ]
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

        kept = inner(found)
        assert kept.any()
        wrong = (found - source).abs().amax(dim=1)
        assert wrong[kept].max() < 0.01


@given(SEEDS, st.booleans())
def test_a_point_is_seen_where_the_moved_camera_projects_it(seed: int, mirror: bool) -> None:
    camera = torch.tensor([30.0, 28.0, 11.0, 12.5]).expand(SAMPLES, 4)
    ray = torch.tensor([0.05, -0.04])  # x/z and y/z of a point before the camera
    pixel = camera[:, :2] * ray + camera[:, 2:]
    for placement in kinds(seed, mirror):
        moved = placement.intrinsics(camera)

        expected = placement.scale * pixel + placement.offset

        assert torch.allclose((moved[:, :2] * ray + moved[:, 2:]).double(), expected, atol=1e-4)


def test_a_clips_cameras_move_like_its_frames() -> None:
    placement = Placement.moved(draws(1), SIDE, 3, 0.1)
    camera = torch.rand(SAMPLES, 5, 4)

    moved = placement.intrinsics(camera)

    assert torch.equal(moved[:, 2], placement.intrinsics(camera[:, 2]))


@given(SEEDS)
def test_mirroring_twice_is_not_mirroring(seed: int) -> None:
    once, all_of_them = kinds(seed, mirror=False)[1], torch.ones(SAMPLES, dtype=torch.bool)

    twice = once.mirrored(all_of_them).mirrored(all_of_them)

    assert torch.allclose(twice.scale, once.scale)
    assert torch.allclose(twice.offset, once.offset)


def test_mirrored_pixels_are_flipped() -> None:
    still = Placement.moved(draws(0), SIDE, 0, 0.0)

    turned = still.mirrored(torch.ones(SAMPLES, dtype=torch.bool)).applied(places())

    assert torch.allclose(turned, places().flip(-1), atol=1e-5)


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
