"""Losses of predictions against formulas in float64 NumPy, over one rank and over two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.ranks import Ranks

from tectum_train.distributed import world_size
from tectum_train.losses.prediction import (
    frame_errors,
    latent_spread,
    latent_sums,
    mean_error,
    spread_of,
)

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
SEEDS = st.integers(0, 2**32)


def drawn(seed: int, rows: int = 6, frames: int = 3) -> dict[str, Any]:
    """Predictions, what came, and what counts; something does."""
    draw = np.random.default_rng(seed)
    predicted, target = draw.normal(size=(2, rows, frames, 4, 5))
    counted = draw.uniform(size=(rows, frames)) < 0.6
    counted[0, 0] = True
    return {"predicted": predicted, "target": target, "counted": counted}


def computed(predicted: Floats, target: Floats, counted: NDArray[np.bool_]) -> Arrays:
    """This rank's share of the error, its gradient on averaged losses, and the targets' spread."""
    guess = torch.from_numpy(np.array(predicted)).requires_grad_()
    came, counts = torch.from_numpy(np.array(target)), torch.from_numpy(np.array(counted))
    loss = mean_error(frame_errors(guess, came), counts)
    (loss / world_size()).backward()
    assert guess.grad is not None
    return {
        "loss": loss.detach().numpy(),
        "gradient": guess.grad.numpy(),
        "spread": latent_spread(came, counts).numpy(),
    }


def formula(predicted: Floats, target: Floats, counted: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Mean squared difference over what counts, and its gradient."""
    difference = predicted - target
    error = float((difference[counted] ** 2).mean())
    gradient = 2 * difference * counted[:, :, None, None] / (counted.sum() * 4 * 5)
    return error, gradient


@given(SEEDS, st.integers(1, 7), st.integers(1, 4))
def test_the_error_and_its_gradient_are_their_formula(seed: int, rows: int, frames: int) -> None:
    given_ = drawn(seed, rows, frames)

    found = computed(**given_)

    error, gradient = formula(**given_)
    assert np.isclose(found["loss"], error, rtol=1e-12)
    np.testing.assert_allclose(found["gradient"], gradient, rtol=1e-12, atol=0)


@given(SEEDS)
def test_the_spread_is_the_root_of_the_mean_variance(seed: int) -> None:
    given_ = drawn(seed)

    chosen = given_["target"][given_["counted"]]

    assert np.isclose(computed(**given_)["spread"], np.sqrt(chosen.var(axis=0).mean()), rtol=1e-9)


@given(SEEDS, st.integers(1, 5))
def test_the_spread_of_two_parts_is_that_of_what_both_add_up(seed: int, rows: int) -> None:
    given_ = drawn(seed)
    latents, counted = (torch.from_numpy(given_[key]) for key in ("target", "counted"))

    one, other = (
        latent_sums(latents[part], counted[part]) for part in (slice(rows), slice(rows, 9))
    )
    added = [first + second for first, second in zip(one, other, strict=True)]

    assert torch.isclose(spread_of(*added), latent_spread(latents, counted), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_over_two_ranks_all_is_that_of_one_however_unequally_frames_count(
    ranks: Ranks, seed: int
) -> None:
    given_ = drawn(seed)
    given_["counted"][3:, 1:] = False  # fewer on the second rank

    both, whole = ranks.run(computed, **given_), computed(**given_)

    assert np.isclose(np.mean([one["loss"] for one in both]), whole["loss"], rtol=1e-12)
    np.testing.assert_allclose(
        np.concatenate([one["gradient"] for one in both]), whole["gradient"], rtol=1e-12, atol=0
    )
    for one in both:
        assert np.isclose(one["spread"], whole["spread"], rtol=1e-9)


def test_where_nothing_counts_the_error_is_zero_and_so_is_its_gradient() -> None:
    given_ = drawn(0)

    found = computed(**{**given_, "counted": np.zeros_like(given_["counted"])})

    assert found["loss"] == 0
    assert not found["gradient"].any()


@given(SEEDS)
def test_several_means_may_have_one_divisor(seed: int) -> None:
    given_ = drawn(seed)
    errors = frame_errors(*(torch.from_numpy(given_[key]) for key in ("predicted", "target")))
    counted = torch.from_numpy(given_["counted"])
    among = torch.ones(6, 3, dtype=torch.bool)

    both = mean_error(errors, counted, among) + mean_error(errors, ~counted, among)

    assert torch.isclose(both, errors.mean(), rtol=1e-12)


@given(SEEDS)
def test_what_does_not_count_changes_nothing(seed: int) -> None:
    given_ = drawn(seed)
    other = given_["predicted"] + 100 * ~given_["counted"][:, :, None, None]

    found = computed(**{**given_, "predicted": other})

    assert np.isclose(found["loss"], computed(**given_)["loss"], rtol=1e-12)


def test_unrelated_latents_are_two_apart_and_equal_ones_have_no_spread() -> None:
    many = np.random.default_rng(0).normal(size=(2, 64, 8, 16, 16))
    counted = torch.ones(64, 8, dtype=torch.bool)
    one, other = (torch.from_numpy(part) for part in many)

    assert mean_error(frame_errors(one, other), counted).item() == pytest.approx(2, rel=0.01)
    assert latent_spread(one, counted).item() == pytest.approx(1, rel=0.01)
    assert latent_spread(one[:1, :1].expand(64, 8, -1, -1), counted).item() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_stay_finite_at_scale_100(dtype: torch.dtype) -> None:
    given_ = drawn(1)
    guess = (torch.from_numpy(given_["predicted"]) * 100).to(dtype).requires_grad_()
    target = (torch.from_numpy(given_["target"]) * 100).to(dtype)
    counted = torch.from_numpy(given_["counted"])

    loss = mean_error(frame_errors(guess, target), counted)
    loss.backward()

    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert guess.grad is not None
    assert bool(torch.isfinite(guess.grad).all())
    assert torch.isfinite(latent_spread(target, counted))
