"""Augmentation: one draw for all frames of a sample, replayable, and no larger than it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tectum_train.augment import AugmentationConfig, CropConfig, Draws, Frames, Placement

SIDE = 16


def frames(samples: int = 3, each: int = 2, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(256, (samples, each, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)


def ramp(samples: int = 1) -> Tensor:
    """Pixels that say where they are: 10·column in red, 10·row in green."""
    grid = 10 * torch.arange(SIDE, dtype=torch.uint8)
    red, green = grid.expand(SIDE, SIDE), grid[:, None].expand(SIDE, SIDE)
    return torch.stack([red, green, torch.zeros_like(red)]).expand(samples, 1, 3, SIDE, SIDE)


class Changed:
    """Frames as these strengths change them; what is not named is off."""

    def __init__(self, **strengths: Any) -> None:
        off = {"shift": 0, "zoom": 0.0, "colour": 0.0, "hue": 0.0, "grey": 0.0}
        self.frames = Frames(SIDE, AugmentationConfig.model_validate({**off, **strengths}))

    def __call__(self, given_: Tensor, seed: int) -> Tensor:
        index = np.arange(len(given_))
        return self.frames(given_, Draws(seed, np.zeros_like(index), index))


augmentation = Changed


each = pytest.mark.parametrize(
    "strengths",
    [
        {"shift": 2},
        {"zoom": 0.3},
        {"colour": 0.3},
        {"hue": 0.2},
        {"grey": 0.5},
        {"crop": {"area": [0.2, 0.9]}},
        {"crop": {"area": [0.3, 1.0]}, "shift": 1, "zoom": 0.2, "blur": 0.5},
        {"shift": 2, "zoom": 0.1, "colour": 0.3, "hue": 0.1, "grey": 0.2},
    ],
    ids=lambda strengths: "+".join(strengths),
)


@each
@given(seed=st.integers(0, 2**63 - 1))
def test_equal_seeds_give_equal_pixels(strengths: dict[str, float], seed: int) -> None:
    augment = augmentation(**strengths)

    assert torch.equal(augment(frames(), seed), augment(frames(), seed))


@each
def test_another_seed_gives_other_pixels(strengths: dict[str, float]) -> None:
    augment = augmentation(**strengths)

    assert not torch.equal(augment(frames(), 1), augment(frames(), 2))


@each
@given(seed=st.integers(0, 2**32))
def test_all_frames_of_a_sample_are_drawn_alike(strengths: dict[str, float], seed: int) -> None:
    still = frames(samples=4, each=1).expand(4, 3, 3, SIDE, SIDE)

    changed = augmentation(**strengths)(still, seed)

    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(changed[:, 0], changed[:, 2])


def test_all_frames_of_a_sample_are_blurred_alike() -> None:
    side = 7 * SIDE  # large enough to see how wide a blur is
    still = torch.randint(256, (4, 1, 3, side, side), dtype=torch.uint8).expand(-1, 3, -1, -1, -1)
    config, index = AugmentationConfig(shift=0, colour=0, hue=0, blur=1.0), np.arange(4)

    changed = Frames(side, config)(still, Draws(0, np.zeros_like(index), index))

    assert not torch.equal(changed, still)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(changed[:, 0], changed[:, 2])


@each
def test_samples_are_drawn_apart(strengths: dict[str, float]) -> None:
    same = frames(samples=1).expand(16, 2, 3, SIDE, SIDE)

    changed = augmentation(**strengths)(same, 0)

    assert len({tuple(sample.flatten().tolist()) for sample in changed}) > 1


@each
def test_pixels_stay_uint8_in_the_same_shape(strengths: dict[str, float]) -> None:
    changed = augmentation(**strengths)(frames(5, 2), 0)

    assert changed.dtype == torch.uint8
    assert changed.shape == (5, 2, 3, SIDE, SIDE)


def test_at_zero_nothing_changes() -> None:
    assert torch.equal(augmentation()(frames(), 0), frames())


@given(st.integers(1, 4), st.integers(0, 2**32))
def test_nothing_moves_farther_than_the_shift(shift: int, seed: int) -> None:
    given_, changed = ramp(8), augmentation(shift=shift)(ramp(8), seed)

    # Red and green are ten times the place, so a tenth of the difference is the way gone.
    moved = (changed.float() - given_.float())[:, 0, :2] / 10
    assert moved.abs().max() <= shift + 0.1
    inner = moved[:, :, shift : SIDE - shift, shift : SIDE - shift]
    for sample in inner:
        for axis in sample:  # the whole picture goes the same way
            assert axis.max() - axis.min() <= 0.11


def test_shifts_use_the_room_they_have_both_ways() -> None:
    changed = augmentation(shift=3)(ramp(200), 0)

    moved = (changed.float() - ramp(200).float())[:, 0, :2, 8, 8] / 10
    assert moved.min() < -2.5
    assert moved.max() > 2.5


def test_what_comes_in_at_the_border_repeats_it() -> None:
    grey = torch.full((6, 1, 3, SIDE, SIDE), 77, dtype=torch.uint8)

    assert (augmentation(shift=4)(grey, 0).int() - 77).abs().max() <= 1


def test_a_zoom_leaves_the_middle_where_it_is() -> None:
    changed = augmentation(zoom=0.3)(ramp(100), 0).float()[:, 0, 0]  # red is ten times the column

    steepness = (changed[:, 8, 10] - changed[:, 8, 5]) / 50
    assert ((changed[:, 8, 7:9].mean(-1) - 75).abs() < 1.5).all()
    assert steepness.min() < 0.85  # nearer
    assert steepness.max() > 1.25  # farther
    assert steepness.min() > 1 / 1.3 - 0.03
    assert steepness.max() < 1 / 0.7 + 0.03


@given(st.floats(0.1, 0.8), st.integers(0, 2**32))
def test_a_crop_shows_its_share_of_the_picture_and_nothing_beyond(least: float, seed: int) -> None:
    crop = {"area": [least, 0.9], "aspect": 1.5}

    changed = augmentation(crop=crop)(ramp(40), seed).float()[:, 0, :2] / 10

    across, down = changed[:, 0, 8], changed[:, 1, :, 8]  # columns and rows of the source
    wide = torch.stack([one.amax(1) - one.amin(1) for one in (across, down)], 1) * SIDE / (SIDE - 1)
    assert changed.min() >= 0
    assert changed.max() <= SIDE - 1
    share = wide.prod(1) / SIDE**2
    assert share.max() < 0.9 + 0.06
    assert share.min() > least * 0.66 - 0.06  # too wide a crop loses some, an outermost pixel half


@given(st.integers(0, 2**63 - 1))
def test_a_crop_is_zoomed_and_shifted_after_it_is_cut(seed: int) -> None:
    config = AugmentationConfig(shift=2, zoom=0.2).model_copy(
        update={"crop": CropConfig(area=(0.3, 1.0))}
    )
    index = np.arange(6)
    draws, source = Draws(seed, np.zeros_like(index), index), torch.rand(6, 4)
    part = Placement.cropped(draws, "crop", SIDE, SIDE, (0.3, 1.0))
    moved = Placement.moved(draws, SIDE, 2, 0.2)

    placed = Frames(SIDE, config).placement(draws)

    assert torch.allclose(
        placed.intrinsics(source), moved.intrinsics(part.intrinsics(source)), atol=1e-4
    )


def test_blurred_frames_have_softer_edges_and_the_same_mean() -> None:
    sharp = frames(samples=4).repeat_interleave(7, -1).repeat_interleave(7, -2)  # 112 pixels
    config = AugmentationConfig(shift=0, colour=0, hue=0, blur=1.0)
    index = np.arange(4)

    changed = Frames(7 * SIDE, config)(sharp, Draws(0, np.zeros_like(index), index)).float()

    soft, hard = (one.float().diff(dim=-1).square().mean() for one in (changed, sharp))
    assert soft < 0.9 * hard
    assert (changed.mean() - sharp.float().mean()).abs() < 1


@pytest.mark.parametrize("crop", [{"area": [0.8, 0.2]}, {"area": [0, 1]}, {"aspect": 0.5}])
def test_a_crop_that_is_none_is_refused(crop: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"least to most, not from 0\.8 to 0\.2|greater than"):
        augmentation(crop=crop)


def test_grey_samples_are_the_share_that_was_asked_for() -> None:
    changed = augmentation(grey=0.3)(frames(samples=400), 0).int()

    grey = (changed.amax(2) == changed.amin(2)).all(-1).all(-1)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert 0.2 < grey[:, 0].float().mean() < 0.4


def test_turned_hues_keep_greys_grey() -> None:
    grey = torch.arange(SIDE, dtype=torch.uint8).mul(9).expand(6, 1, 3, SIDE, SIDE)

    assert (augmentation(hue=0.5)(grey, 0).int() - grey.int()).abs().max() <= 1


def test_colours_change_without_moving_anything() -> None:
    edge = torch.zeros(6, 1, 3, SIDE, SIDE, dtype=torch.uint8)
    edge[..., SIDE // 2 :] = 200

    changed = augmentation(colour=0.4, hue=0.1, grey=0.3)(edge, 0).float()

    assert torch.equal(changed.std(dim=-2), torch.zeros_like(changed.std(dim=-2)))
    left, right = changed[..., : SIDE // 2], changed[..., SIDE // 2 :]
    assert (left.amax(-1) == left.amin(-1)).all()
    assert (right.amax(-1) == right.amin(-1)).all()


@each
def test_a_sample_is_changed_alike_whatever_its_batch(strengths: dict[str, float]) -> None:
    changing, given_ = augmentation(**strengths).frames, frames(samples=8)
    place, epoch = np.arange(8), np.full(8, 3)
    whole = changing(given_, Draws(5, epoch, place))
    some = [6, 1, 3]

    part = changing(given_[some], Draws(5, epoch[some], place[some]))

    assert torch.equal(whole, changing(given_, Draws(5, epoch, place)))
    assert (part.int() - whole[some].int()).abs().max() <= 1  # sums in another order, rounded


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    augmentation(shift=2, colour=0.3, hue=0.1)(frames(), 99)

    assert torch.equal(torch.rand(3), expected)
