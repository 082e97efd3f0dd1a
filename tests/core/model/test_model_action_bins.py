"""Bins of actions: every number in one bin, whose centre is near it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import softmax
from tests.bundles import stack
from torch.testing import assert_close

from tectum_core.architecture import ActionBinsConfig, ActionConfig, FusionConfig
from tectum_core.model import Context, Fusion
from tectum_core.model.action_bins import ActionBins
from tectum_core.model.fusion import straight

COUNTS, SEEDS = st.integers(2, 40), st.integers(0, 2**32)


def bins(**settings: object) -> ActionBins:
    return ActionBins(ActionBinsConfig.model_validate(settings), 3)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(count: int, actions: torch.Tensor) -> ActionBins:
    found = bins(count=count, spacing="quantiles")
    found.fit(actions)
    return found


def centres_of(found: ActionBins, actions: torch.Tensor) -> torch.Tensor:
    """Of the bin that each number lies in."""
    chosen = torch.nn.functional.one_hot(found.places(actions), found.config.count).bool()
    return found.centres.expand(chosen.shape)[chosen].view(actions.shape)


@given(COUNTS, st.floats(0.5, 10), SEEDS)
def test_equally_wide_bins_are_never_further_than_half_their_width(
    count: int, limit: float, seed: int
) -> None:
    actions = (2 * torch.rand(20, 3, generator=torch.Generator().manual_seed(seed)) - 1) * limit

    near = centres_of(bins(count=count, limit=limit), actions)

    assert float((near - actions).abs().max()) <= limit / count * (1 + 1e-4)


def test_what_is_beyond_the_limit_lies_in_the_outermost_bin() -> None:
    places = bins(count=4, limit=2.0).places(torch.tensor([[-9.0, 9.0, 0.5]]))

    assert places.tolist() == [[0, 3, 2]]


@given(st.integers(2, 20), st.integers(1, 5), SEEDS)
def test_quantile_bins_of_different_numbers_hold_equally_many(
    count: int, each: int, seed: int
) -> None:
    actions = normal(count * each, 3, seed=seed)

    places = fitted(count, actions).places(actions)

    for column in places.T:
        found = torch.bincount(column, minlength=count)
        assert int((found - each).abs().max()) <= 1


@given(COUNTS, SEEDS)
def test_quantile_edges_are_numpys_to_the_next_number(count: int, seed: int) -> None:
    actions = normal(50, 3, seed=seed)

    found = fitted(count, actions).edges.numpy()

    for column, edges in zip(actions.T.double().numpy(), found, strict=True):
        shares = np.arange(1, count) / count
        lower, higher = (
            np.quantile(column, shares, method=method) for method in ("lower", "higher")
        )
        gap = np.diff(np.sort(column)).max()
        assert (lower - gap - 1e-6 <= edges).all()
        assert (edges <= higher + gap + 1e-6).all()


@given(COUNTS, SEEDS, st.sampled_from([None, 0, 1]))
def test_a_quantile_bins_centre_is_the_median_of_what_lies_in_it(
    count: int, seed: int, digits: int | None
) -> None:
    actions = normal(50, 3, seed=seed)
    actions = actions if digits is None else actions.round(decimals=digits)  # with many alike

    found = fitted(count, actions)

    assert (found.centres[:, :-1] <= found.edges).all()
    assert (found.edges <= found.centres[:, 1:]).all()
    for column, places, centres in zip(
        actions.T, found.places(actions).T, found.centres, strict=True
    ):
        for place in places.unique():
            median = np.median(column[places == place].double().numpy())
            assert float(centres[place]) == pytest.approx(median, abs=1e-6)


@given(st.integers(2, 64), st.integers(1, 400))
def test_an_open_or_closed_gripper_is_told_exactly_however_rare_either_is(
    count: int, closed: int
) -> None:
    gripper = torch.ones(401, 3)
    gripper[:closed] = -1
    found = fitted(count, gripper)

    assert torch.equal(centres_of(found, gripper), gripper)
    assert torch.equal(found.places(0.9 * gripper), found.places(gripper))  # or nearly so


def test_a_number_that_never_changes_is_told_exactly() -> None:
    still = torch.full((9, 3), 0.25)

    assert torch.equal(centres_of(fitted(8, still), still), still)


@given(st.integers(2, 9), SEEDS)
def test_what_is_expected_is_the_mean_centre(count: int, seed: int) -> None:
    logits, found = normal(2, 5, 3, count, seed=seed), fitted(count, normal(40, 3, seed=seed))

    expected = (softmax(logits.double().numpy(), axis=-1) * found.centres.double().numpy()).sum(-1)
    assert_close(found.expected(logits), torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-5)


def test_a_certain_bin_is_its_centre() -> None:
    found = bins(count=8)
    places = torch.tensor([[0, 3, 7]])
    logits = 1e3 * torch.nn.functional.one_hot(places, 8)

    assert torch.equal(found.expected(logits)[0], found.centres[range(3), places[0]])


@pytest.mark.parametrize("wrong", [{"count": 1}, {"count": 2048}, {"limit": 0}, {"spacing": "log"}])
def test_settings_have_limits(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        bins(**wrong)


# ---------------------------------------------------------------- in the fusion


def fusion(count: int = 64) -> Fusion:
    torch.manual_seed(0)
    actions = ActionConfig(dimensions=3, max_steps=8, bins=ActionBinsConfig(count=count, limit=4.0))
    return Fusion(FusionConfig(transformer=stack()), 24, 20, 30, actions).eval()


def test_actions_are_filled_in_with_what_their_bins_lead_one_to_expect() -> None:
    model, actions = fusion(), normal(2, 8, 3)
    hidden = torch.arange(8).expand(2, -1) > 3

    logits = model.guess_actions(actions, hidden, Context())

    assert logits.shape == (2, 8, 3, 64)
    assert logits.dtype == torch.float32
    assert model.bins is not None
    filled = model.fill_actions(actions, hidden, Context())
    assert torch.equal(filled, model.bins.expected(logits))


def test_a_step_that_trusts_the_line_fills_in_the_line() -> None:
    model, actions = fusion(count=256), normal(2, 8, 3)
    hidden = torch.tensor([[False, True, True, True, False, True, False, False]] * 2)
    assert model.action_head is not None
    with torch.no_grad():
        model.action_head.weight.zero_()
        model.action_head.bias.zero_()
        model.action_head.bias[:: 256 + 1] = 200.0

    filled = model.fill_actions(actions, hidden, Context()).detach()

    line = straight(actions, hidden)
    assert float((filled - line).abs().max()) <= 4 / 256


def test_without_bins_there_is_nothing_to_guess() -> None:
    plain = Fusion(FusionConfig(transformer=stack()), 24, 20, 30, ActionConfig(dimensions=3))

    with pytest.raises(ValueError, match="have no bins"):
        plain.guess_actions(normal(1, 4, 3), torch.ones(1, 4, dtype=torch.bool), Context())
