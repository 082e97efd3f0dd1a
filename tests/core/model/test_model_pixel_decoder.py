"""The MAE decoder: its target by an independent formula, and a painting that undoes it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.bundles import stack, vision
from torch import Tensor
from torch.testing import assert_close

from tectum_core.architecture import PixelDecoderConfig
from tectum_core.model import PatchPrediction, PixelDecoder

FLOOR = 1e-3
SETTINGS: tuple[dict[str, bool], ...] = ({}, {"channelwise": True}, {"normalised_target": False})


def decoder(**changes: object) -> PixelDecoder:
    given = {"transformer": stack(), "variance_floor": FLOOR, **changes}
    config = PixelDecoderConfig.model_validate(given)
    return PixelDecoder(config, vision(), 24).eval()


def patches(scale: float = 1.0) -> Tensor:
    return torch.randn(2, 16, 192) * scale + torch.randn(2, 16, 1)


def visible(kept: int = 4) -> tuple[Tensor, Tensor]:
    keep = torch.stack([torch.randperm(16)[:kept].sort().values for _ in range(2)])
    return torch.randn(2, kept, 32), keep


@given(st.floats(0.1, 10))
def test_a_normalised_target_has_mean_zero_and_almost_unit_variance(scale: float) -> None:
    given = patches(scale)
    exact = given.double().numpy()
    mean = exact.mean(-1, keepdims=True)
    variance = exact.var(-1, ddof=1, keepdims=True)

    target = decoder().target(given)

    wanted = (exact - mean) / np.sqrt(variance + FLOOR)
    np.testing.assert_allclose(target.values.numpy(), wanted, atol=1e-4)
    np.testing.assert_allclose(target.values.double().numpy().mean(-1), 0, atol=1e-4)
    shrunk = (variance / (variance + FLOOR))[..., 0]
    np.testing.assert_allclose(target.values.double().numpy().var(-1, ddof=1), shrunk, atol=1e-4)
    np.testing.assert_allclose(target.mean.numpy(), mean, atol=1e-4)
    np.testing.assert_allclose(target.log_spread.exp().numpy() ** 2, variance + FLOOR, rtol=1e-4)


def test_a_flat_patch_is_not_amplified_to_noise() -> None:
    flat = torch.full((1, 16, 192), 0.7)
    flat[..., 0] += 1e-4

    assert float(decoder().target(flat).values.abs().max()) < 0.01


def test_a_channelwise_target_is_normalised_in_each_colour_by_itself() -> None:
    given = patches()
    by_colour = given.unflatten(2, (3, 64)).double().numpy()
    mean, variance = by_colour.mean(-1), by_colour.var(-1, ddof=1)

    target = decoder(channelwise=True).target(given)

    wanted = (by_colour - mean[..., None]) / np.sqrt(variance + FLOOR)[..., None]
    np.testing.assert_allclose(target.values.numpy(), wanted.reshape(given.shape), atol=1e-4)
    np.testing.assert_allclose(target.mean.numpy(), mean, atol=1e-4)
    np.testing.assert_allclose(target.log_spread.exp().numpy() ** 2, variance + FLOOR, rtol=1e-4)


@given(st.sampled_from(SETTINGS), st.floats(0.1, 10))
def test_painting_a_perfect_prediction_gives_the_pixels_back(
    settings: dict[str, bool], scale: float
) -> None:
    given = patches(scale)
    made = decoder(**settings)
    target = made.target(given)

    normalised = made.config.normalised_target
    perfect = PatchPrediction(target.values, target.mean, target.log_spread, normalised)

    assert_close(perfect.pixels(), given, rtol=1e-4, atol=1e-4)


def test_a_plain_target_is_the_pixels_themselves() -> None:
    given = patches()

    assert torch.equal(decoder(normalised_target=False).target(given).values, given)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_patch_is_predicted_whatever_was_kept(settings: dict[str, bool]) -> None:
    made = decoder(**settings)

    prediction = made(*visible())

    groups = 3 if made.config.channelwise else 1
    assert prediction.normalised is made.config.normalised_target
    assert prediction.values.shape == (2, 16, 192)
    assert prediction.mean.shape == prediction.log_spread.shape == (2, 16, groups)
    assert prediction.pixels().shape == (2, 16, 192)


def test_each_kept_token_is_read_where_it_stood() -> None:
    model, (tokens, keep) = decoder(), visible()
    order = torch.tensor([2, 0, 3, 1])

    shuffled = model(tokens[:, order], keep[:, order])

    assert_close(shuffled.values, model(tokens, keep).values, rtol=0, atol=1e-5)
    moved = model(tokens, (keep + 1) % 16)
    assert not torch.allclose(moved.values, model(tokens, keep).values, atol=1e-4)


def test_the_instruction_is_read_up_to_its_padding() -> None:
    model, (tokens, keep) = decoder(text_context=True), visible()
    text, seen = torch.randn(2, 5, 24), torch.arange(5)[None].expand(2, -1) < 3
    other_padding, other_words = text.clone(), text.clone()
    other_padding[:, 3:] = torch.randn(2, 2, 24)
    other_words[:, :3] = torch.randn(2, 3, 24)

    told = model(tokens, keep, text, seen).values

    assert_close(model(tokens, keep, other_padding, seen).values, told)
    assert not torch.allclose(model(tokens, keep, other_words, seen).values, told, atol=1e-4)
    assert not torch.allclose(model(tokens, keep).values, told, atol=1e-4)


def test_text_is_refused_where_it_is_not_read() -> None:
    tokens, keep = visible()

    with pytest.raises(ValueError, match="reads no text, or text_seen is missing"):
        decoder()(tokens, keep, torch.randn(2, 5, 24), torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="reads no text, or text_seen is missing"):
        decoder(text_context=True)(tokens, keep, torch.randn(2, 5, 24))
    with pytest.raises(ValueError, match="text_context needs a text trunk"):
        PixelDecoder(PixelDecoderConfig(transformer=stack(), text_context=True), vision(), None)


def test_a_target_that_is_not_normalised_cannot_be_so_channelwise() -> None:
    with pytest.raises(ValidationError, match="it needs that they are"):
        decoder(channelwise=True, normalised_target=False)
