"""Views of one picture: two whole ones and small ones, each changed by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tectum_train.augment import Draws, Views, ViewsConfig

SIDE, SAMPLES = 32, 5
STILL: dict[str, Any] = {
    "area": (1.0, 1.0), "aspect": 1, "colour": 0, "hue": 0, "grey": 0, "blur": 0, "flip": 0,
}  # fmt: skip


def pictures() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(256, (SAMPLES, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)


def viewed(seed: int = 0, **settings: Any) -> tuple[Tensor, Tensor]:
    index = np.arange(SAMPLES)
    config = ViewsConfig.model_validate(settings)
    views, draws = Views(SIDE, config), Draws(seed, np.zeros_like(index), index)
    return views.whole(pictures(), draws), views.small(pictures(), draws)


def test_there_are_two_whole_views_and_as_many_small_ones_as_asked_for() -> None:
    whole, small = viewed(crops=3, crop_size=16)

    assert whole.shape == (SAMPLES, 2, 3, SIDE, SIDE)
    assert small.shape == (SAMPLES, 3, 3, 16, 16)
    assert whole.dtype == small.dtype == torch.uint8


def test_without_crops_there_are_no_small_ones() -> None:
    assert viewed()[1].shape[1] == 0


def test_views_differ_from_each_other_and_repeat_by_seed() -> None:
    whole, small = viewed(crops=2)
    again, small_again = viewed(crops=2)

    assert torch.equal(whole, again)
    assert torch.equal(small, small_again)
    assert not torch.equal(whole[:, 0], whole[:, 1])
    assert not torch.equal(small[:, 0], small[:, 1])
    assert not torch.equal(viewed(seed=1)[0], whole)


def test_at_zero_a_whole_view_is_the_picture() -> None:
    whole, _ = viewed(**STILL)

    assert (whole[:, 0].int() - pictures().int()).abs().max() <= 1


@pytest.mark.parametrize("change", [{"colour": 0.4}, {"hue": 0.1}, {"grey": 1.0}, {"blur": 1.0}])
def test_each_change_can_be_alone(change: dict[str, float]) -> None:
    whole, _ = viewed(**{**STILL, "colour_share": 1.0, **change})

    assert not torch.equal(whole[:, 0], pictures())


def test_grey_views_have_no_colour_and_blurred_ones_fewer_edges() -> None:
    grey, _ = viewed(**{**STILL, "grey": 1.0})
    blurred, _ = viewed(**{**STILL, "blur": 1.0})

    assert (grey.amax(2) == grey.amin(2)).all()
    assert blurred.float().diff(dim=-1).abs().mean() < pictures().float().diff(dim=-1).abs().mean()


def test_mirrored_views_are_as_often_as_asked_for() -> None:
    whole, small = viewed(**{**STILL, "flip": 1.0, "crops": 1, "crop_area": (1.0, 1.0)})

    assert (whole[:, 0].int() - pictures().flip(-1).int()).abs().max() <= 1
    assert small.shape == (SAMPLES, 1, 3, 32, 32)
    assert (small[:, 0].int() - pictures().flip(-1).int()).abs().max() <= 1


def test_a_view_is_mirrored_whatever_the_other_is() -> None:
    many = torch.randint(256, (400, 3, 8, 8), dtype=torch.uint8)
    index, config = np.arange(400), ViewsConfig.model_validate({**STILL, "flip": 0.5})

    whole = Views(8, config).whole(many, Draws(0, np.zeros_like(index), index))

    one, other = (whole != many[:, None]).flatten(2).any(dim=2).unbind(1)
    for both in (one & other, one & ~other, ~one & other, ~one & ~other):
        assert 0.15 < both.float().mean() < 0.35


def test_each_picture_has_other_colours_in_either_view() -> None:
    whole, _ = viewed(**{**STILL, "colour": 0.4, "colour_share": 1.0})

    assert (whole[:, 0] != whole[:, 1]).flatten(1).any(dim=1).all()


def test_each_kind_of_view_is_blurred_and_solarised_as_often_as_it_says() -> None:
    """DINO's and BYOL's: one view always blurred, the other hardly, but solarised."""
    only_first: dict[str, Any] = {
        **STILL,
        "blur": 1.0,
        "second": {"blur": 0.0},
        "small": {"blur": 0.0},
    }
    crops: dict[str, Any] = {"crops": 2, "crop_size": SIDE, "crop_area": (1.0, 1.0)}
    solarised = {**STILL, **crops, "second": {"solarise": 1.0}}

    blurred, sharp = viewed(**only_first, **crops)
    whole, small = viewed(**solarised)

    assert (blurred[:, 1].int() - pictures().int()).abs().max() <= 1
    assert (sharp.int() - pictures()[:, None].int()).abs().max() <= 1
    assert not torch.equal(blurred[:, 0], blurred[:, 1])
    assert (whole[:, 0].int() - pictures().int()).abs().max() <= 1
    assert (small.int() - pictures()[:, None].int()).abs().max() <= 1
    expected = torch.where(pictures() >= 128, 255 - pictures(), pictures())
    assert (whole[:, 1].int() - expected.int()).abs().max() <= 1


def test_views_that_say_nothing_of_their_own_are_changed_as_the_first() -> None:
    alike: dict[str, Any] = {"blur": 0.7, "solarise": 0.4, "crops": 2}
    other = {"blur": 0.7, "solarise": 0.4}

    for said, meant in zip(
        viewed(**alike), viewed(**alike, second=other, small=other), strict=True
    ):
        assert torch.equal(said, meant)


def test_an_area_from_more_to_less_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"crop_area goes from least to most"):
        ViewsConfig(crop_area=(0.5, 0.1))
