"""Colours: each change is the definition that the papers use, and no larger than it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tectum_train.augment import Colours, Draws

SAMPLES, EACH, SIDE = 5, 2, 6
GREY = np.array([0.299, 0.587, 0.114])[:, None, None]  # ITU-R BT.601, PIL's own
Picture = NDArray[np.float64]


def frames(seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(SAMPLES, EACH, 3, SIDE, SIDE, generator=draw)


def draws(seed: int, samples: int = SAMPLES) -> Draws:
    index = np.arange(samples)
    return Draws(seed, np.zeros_like(index), index)


# ---------------------------------------------------------------- the papers' formulas, float64


def blended(picture: Picture, other: Picture | float, factor: float) -> Picture:
    """PIL's Image.blend, kept in range: the other one at 0, the picture at 1."""
    return np.clip(factor * picture + (1 - factor) * other, 0, 1)


def jittered(clip: Picture, brightness: float, contrast: float, saturation: float) -> Picture:
    """Float64[F, 3, H, W], changed as torchvision's ColorJitter changes one picture of them all."""
    clip = blended(clip, 0.0, brightness)
    clip = blended(clip, float((clip * GREY).sum(axis=1).mean()), contrast)
    return blended(clip, (clip * GREY).sum(axis=1, keepdims=True), saturation)


@given(st.floats(0.05, 1.0), st.integers(0, 2**63 - 1))
def test_brightness_contrast_and_saturation_are_the_papers(strength: float, seed: int) -> None:
    given_ = frames(seed % 2**32)
    factors = 1 + strength * (2 * draws(seed).uniform("colour", 4)[:, :3].numpy() - 1)

    changed = Colours(strength, hue=0.0).applied(given_, draws(seed))

    for row in range(SAMPLES):
        expected = jittered(given_[row].double().numpy(), *factors[row])
        assert np.abs(changed[row].numpy() - expected).max() < 1e-5


def test_what_comes_into_view_changes_nothing_of_what_stands_still() -> None:
    still = frames()[:, :1].repeat(1, EACH, 1, 1, 1)
    still[:, 1, :, :2, :2] = 1.0  # something bright is there in the later frame alone

    changed = Colours(0.4, hue=0.1).applied(still, draws(3))

    assert not torch.equal(changed, still)
    torch.testing.assert_close(changed[:, 0, :, 2:], changed[:, 1, :, 2:])


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_a_plain_grey_is_only_brighter_or_darker(level: float) -> None:
    """Contrast is about a picture's own mean, and grey has no saturation."""
    grey = torch.full((200, 1, 3, 4, 4), level)

    changed = Colours(0.4, hue=0.0).applied(grey, draws(0, 200))[:, 0, 0, 0, 0]

    assert changed.min() >= level * 0.6 - 1e-6
    assert changed.max() <= level * 1.4 + 1e-6
    assert changed.max() - changed.min() > level * 0.7


def test_black_stays_black() -> None:
    black = torch.zeros(20, 1, 3, 4, 4)

    assert not Colours(0.8, hue=0.0).applied(black, draws(0, 20)).any()


def test_grey_pictures_have_the_weights_of_their_colours() -> None:
    expected = (frames().double().numpy() * GREY).sum(axis=2, keepdims=True)

    changed = Colours(0.0, hue=0.0, grey=1.0).applied(frames(), draws(0))

    assert np.abs(changed.numpy() - expected).max() < 1e-6


@given(st.integers(0, 2**32))
def test_colours_of_a_turned_picture_are_as_bright_as_they_were(seed: int) -> None:
    changed = Colours(0.0, hue=0.5).applied(frames(), draws(seed))

    for most in (torch.amax, torch.amin):  # value and chroma of a colour; its hue alone is turned
        assert torch.allclose(most(changed, dim=2), most(frames(), dim=2), atol=1e-5)


def test_blurs_are_gaussian_and_as_wide_as_the_picture_is_large() -> None:
    side, samples = 112, 4
    sharp = torch.rand(samples, 1, 3, side, side, generator=torch.Generator().manual_seed(0))
    sigma = draws(0, samples).between("sigma", 0.1, 2.0)[:, 0].numpy() * side / 224

    blurred = Colours(0.0, hue=0.0, blur=1.0).applied(sharp, draws(0, samples))

    for row in range(samples):
        for channel in range(3):
            expected = gaussian_filter(
                sharp[row, 0, channel].double().numpy(), sigma[row], mode="mirror", radius=5
            )
            assert np.abs(blurred[row, 0, channel].numpy() - expected).max() < 1e-5


def test_solarised_pictures_are_as_dark_where_they_were_bright() -> None:
    dark, bright = frames() * 0.49, 1 - frames() * 0.49
    solarising = Colours(0.0, hue=0.0, solarise=1.0)

    assert torch.equal(solarising.applied(dark, draws(0)), dark)
    assert torch.equal(solarising.applied(bright, draws(0)), 1 - bright)
    assert solarising.applied(frames(), draws(0)).max() <= 0.5


@given(st.integers(0, 2**32))
def test_a_pixel_that_is_a_number_of_eight_bits_is_solarised_as_pil_does(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    whole = torch.randint(256, (SAMPLES, 1, 3, SIDE, SIDE), generator=draw)
    expected = torch.where(whole >= 128, 255 - whole, whole)

    changed = Colours(0.0, hue=0.0, solarise=1.0).applied(whole / 255, draws(0))

    assert torch.equal((changed * 255).round().long(), expected)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_saturation_may_go_as_far_as_it_says_by_itself(
    strength: float, saturation: float, seed: int
) -> None:
    reach = np.array([strength, strength, saturation])
    factors = 1 + reach * (2 * draws(seed).uniform("colour", 4)[:, :3].numpy() - 1)

    changed = Colours(strength, hue=0.0, saturation=saturation).applied(frames(), draws(seed))

    for row in range(SAMPLES):
        expected = jittered(frames()[row].double().numpy(), *factors[row])
        assert np.abs(changed[row].numpy() - expected).max() < 1e-5


# ---------------------------------------------------------------- how often


@pytest.mark.parametrize(
    ("colours", "purpose"),
    [
        (Colours(0.4, hue=0.0, share=0.3), "jitter"),
        (Colours(0.0, hue=0.0, grey=0.3), "grey"),
        (Colours(0.0, hue=0.0, blur=0.3), "blur"),
        (Colours(0.0, hue=0.0, solarise=0.3), "solarise"),
    ],
    ids=["jitter", "grey", "blur", "solarise"],
)
def test_a_share_of_samples_is_changed_and_no_other(colours: Colours, purpose: str) -> None:
    many = torch.rand(60, 1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    chosen = draws(0, 60).chosen(purpose, 0.3)

    changed = (colours.applied(many, draws(0, 60)) != many).flatten(1).any(dim=1)

    assert not changed[~chosen].any()
    # A blur may be too narrow to be seen.
    assert changed[chosen].float().mean() > (0.4 if purpose == "blur" else 0.99)


def test_another_views_name_gives_other_colours() -> None:
    colours = Colours(0.4, hue=0.1, grey=0.5, blur=0.5)

    first, second = (colours.applied(frames(), draws(0), name) for name in (" view 0", " view 1"))

    assert not torch.equal(first, second)
    assert torch.equal(first, colours.applied(frames(), draws(0), " view 0"))


@pytest.mark.parametrize(
    "colours",
    [
        Colours(0.4, hue=0.0, share=0.5),
        Colours(0.0, hue=0.0, grey=0.5),
        Colours(0.0, hue=0.0, blur=0.5),
        Colours(0.0, hue=0.0, solarise=0.5),
    ],
    ids=["jitter", "grey", "blur", "solarise"],
)
def test_whether_one_view_is_changed_says_nothing_of_the_other(colours: Colours) -> None:
    # As wide as the blurs' widths are meant for, so that nearly all of them are seen.
    many = torch.rand(400, 1, 3, 12, 224, generator=torch.Generator().manual_seed(0))

    views = [colours.applied(many, draws(0, 400), name) for name in (" view 0", " view 1")]

    one, other = ((view != many).flatten(1).any(dim=1) for view in views)
    for both in (one & other, one & ~other, ~one & other, ~one & ~other):
        assert 0.15 < both.float().mean() < 0.35


@pytest.mark.parametrize(
    "colours",
    [Colours(0.4, hue=0.0), Colours(0.0, hue=0.1), Colours(0.0, hue=0.0, blur=1.0)],
    ids=["brightness", "hue", "blur"],
)
def test_views_are_changed_by_other_amounts(colours: Colours) -> None:
    many = torch.rand(20, 1, 3, 12, 224, generator=torch.Generator().manual_seed(0))

    one, other = (colours.applied(many, draws(0, 20), name) for name in (" view 0", " view 1"))

    assert (one != other).flatten(1).any(dim=1).all()
