"""Weighting schemes on problems whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tectum_train.tasks.settings import (
    DwaWeights,
    FixedWeights,
    GradNormWeights,
    ImportanceWeights,
    UncertaintyWeights,
    WeightingConfig,
)
from tectum_train.tasks.weights import Weighting, weighting_for

ALL: tuple[WeightingConfig, ...] = (
    FixedWeights(),
    ImportanceWeights(),
    UncertaintyWeights(),
    GradNormWeights(),
    DwaWeights(window=3),
)
BOTH = torch.tensor([True, True])


def fed(scheme: Weighting, losses: list[list[float]], lengths: Tensor | None = None) -> Weighting:
    """The scheme after it has seen these losses, a row a step."""
    for row in losses:
        with torch.no_grad():
            if lengths is not None and scheme.wants_gradients():
                scheme.balance(torch.tensor(row), lengths)
            scheme.observe(torch.tensor(row), torch.tensor(row) > 0)
    return scheme


# ---------------------------------------------------------------- laws of all


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_what_has_no_turn_counts_nothing(config: WeightingConfig) -> None:
    scheme = weighting_for(config, [1.0, 1.0], epoch=4)
    losses = torch.tensor([2.0, 0.0], requires_grad=True)
    only = torch.tensor([True, False])

    total = scheme.total(losses, only, only)
    total.backward()

    assert losses.grad is not None
    assert losses.grad[1] == 0
    assert losses.grad[0] > 0


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_the_sums_derivative_by_a_loss_is_its_weight(config: WeightingConfig) -> None:
    scheme = weighting_for(config, [0.5, 2.0], epoch=4)
    losses = torch.tensor([3.0, 0.1], requires_grad=True)

    scheme.total(losses, BOTH, BOTH).backward()

    torch.testing.assert_close(losses.grad, scheme.weights())


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_a_scheme_goes_on_from_its_state(config: WeightingConfig) -> None:
    steps = [[1.0, 5.0], [0.9, 4.0], [0.5, 4.5], [0.4, 4.4], [0.3, 3.0], [0.2, 2.9], [0.1, 1.0]]
    lengths = torch.tensor([1.0, 3.0])
    whole = fed(weighting_for(config, [1.0, 1.0], epoch=4), steps, lengths)
    first = fed(weighting_for(config, [1.0, 1.0], epoch=4), steps[:4], lengths)

    second = weighting_for(config, [1.0, 1.0], epoch=4)
    second.load_state_dict(first.state_dict())
    fed(second, steps[4:], lengths)

    assert torch.equal(second.weights(), whole.weights())


@given(scale=st.floats(0.01, 100))
@settings(max_examples=20)
def test_importance_is_a_matter_of_ratios(scale: float) -> None:
    one = weighting_for(ImportanceWeights(), [1.0, 3.0], epoch=1).weights()
    other = weighting_for(ImportanceWeights(), [scale, 3 * scale], epoch=1).weights()

    torch.testing.assert_close(one, torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(other, one)


# ---------------------------------------------------------------- uncertainty


@given(st.lists(st.floats(0.05, 20), min_size=2, max_size=5), st.floats(-2, 2))
@settings(max_examples=25)
def test_uncertainty_is_its_formula(losses: list[float], spread: float) -> None:
    scheme = weighting_for(UncertaintyWeights(initial=spread), [1.0] * len(losses), epoch=1)

    every = torch.ones(len(losses), dtype=torch.bool)
    total = scheme.total(torch.tensor(losses), every, every)

    wanted = sum(loss / (2 * math.exp(spread)) + spread / 2 for loss in losses)
    assert float(total.detach()) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def settled(given: list[float], losses: list[float]) -> list[float]:
    """What two losses that stay as they are come to count, once uncertainty has learnt."""
    scheme = weighting_for(UncertaintyWeights(), given, epoch=1)
    told, descent = torch.tensor(losses), torch.optim.SGD(scheme.parameters(), lr=0.1)
    for _ in range(400):
        descent.zero_grad()
        scheme.total(told, BOTH, BOTH).backward()
        descent.step()
    found: list[float] = (scheme.weights() * told).tolist()
    return found


def test_a_loss_a_hundred_times_as_large_comes_to_weigh_a_hundredth() -> None:
    first, second = settled([1.0, 1.0], [100.0, 1.0])

    assert first == pytest.approx(0.5, rel=0.02)  # at its best exp s is the loss
    assert second == pytest.approx(0.5, rel=0.02)


def test_what_uncertainty_settles_at_is_to_each_other_as_the_weights_given() -> None:
    first, second = settled([6.0, 1.0], [5.0, 2.0])

    assert first / second == pytest.approx(6.0, rel=0.01)


@pytest.mark.parametrize("turns", [[True, False], [True, True]], ids=["no turn", "nothing counted"])
def test_what_is_not_heard_keeps_its_uncertainty_whatever_an_optimiser_remembers(
    turns: list[bool],
) -> None:
    scheme = weighting_for(UncertaintyWeights(), [1.0, 1.0], epoch=1)
    adam = torch.optim.Adam(scheme.parameters(), lr=0.1)

    def step(losses: list[float], active: list[bool]) -> list[float]:
        adam.zero_grad()
        told = torch.tensor(losses)
        scheme.total(told, torch.tensor(active), told > 0).backward()
        adam.step()
        return scheme.weights().tolist()

    before = step([5.0, 3.0], [True, True])
    after = step([5.0, 0.0], turns)

    assert after[1] == before[1]
    assert after[0] != before[0]


# ---------------------------------------------------------------- GradNorm


def test_grad_norm_makes_gradients_of_one_length_where_all_learn_alike() -> None:
    scheme = weighting_for(GradNormWeights(), [1.0, 1.0], epoch=1)
    lengths = torch.tensor([100.0, 1.0])

    fed(scheme, [[100.0, 1.0]] * 500, lengths)

    pulled = scheme.weights() * lengths
    assert float(pulled[0] / pulled[1]) == pytest.approx(1, abs=0.06)  # a step about it
    assert float(scheme.weights().sum()) == pytest.approx(2, abs=1e-4)


def test_grad_norm_lets_the_slower_one_pull_harder() -> None:
    scheme = weighting_for(GradNormWeights(alpha=1.0, lr=0.005), [1.0, 1.0], epoch=1)

    fed(scheme, [*[[1.0, 1.0]] * 10, *[[0.25, 0.75]] * 800], torch.tensor([1.0, 1.0]))

    # Rates 1/2 and 3/2 of their mean: so are the lengths to be.
    torch.testing.assert_close(scheme.weights(), torch.tensor([0.5, 1.5]), atol=0.02, rtol=0)


def test_one_easy_batch_at_first_does_not_tell_for_the_whole_run() -> None:
    scheme = weighting_for(GradNormWeights(lr=0.005), [1.0, 1.0], epoch=1)

    fed(scheme, [[0.5, 1.0], *[[1.0, 1.0]] * 800], torch.tensor([1.0, 1.0]))

    # By the first batch alone they would pull as 2 ** 1.5 to 1; of ten it is a twentieth.
    pulled = scheme.weights()
    assert float(pulled[0] / pulled[1]) == pytest.approx((1 / 0.95) ** 1.5, abs=0.04)


def test_grad_norm_lets_them_pull_as_the_weights_given_where_all_learn_alike() -> None:
    scheme = weighting_for(GradNormWeights(lr=0.005), [1.0, 3.0], epoch=1)
    lengths = torch.tensor([8.0, 1.0])
    begun = scheme.weights().tolist()

    fed(scheme, [[1.0, 1.0]] * 1500, lengths)

    first, second = (scheme.weights() * lengths).tolist()
    assert begun == [0.5, 1.5]
    assert second / first == pytest.approx(3.0, rel=0.05)
    assert float(scheme.weights().sum()) == pytest.approx(2, abs=1e-4)


def test_grad_norm_leaves_who_does_not_pull_at_what_is_shared_as_it_was() -> None:
    scheme = weighting_for(GradNormWeights(lr=0.05), [1.0, 1.0, 1.0], epoch=4)

    fed(scheme, [[1.0, 1.0, 1.0]] * 400, torch.tensor([1.0, 3.0, 0.0]))

    loud, quiet, absent = scheme.weights().tolist()
    assert absent == 1.0
    assert loud == pytest.approx(1.5, abs=0.1)
    assert quiet == pytest.approx(0.5, abs=0.1)


def test_grad_norm_takes_no_step_in_which_nothing_counted_for_the_first_loss() -> None:
    scheme = weighting_for(GradNormWeights(lr=0.05), [1.0, 1.0], epoch=4)

    fed(scheme, [[1.0, 0.0], *[[1.0, 1.0]] * 300], torch.tensor([1.0, 1.0]))

    torch.testing.assert_close(scheme.weights(), torch.ones(2), atol=0.06, rtol=0)


@pytest.mark.parametrize("wanted", [[1.0, 1.0, 1.0], [2.0, 0.5, 5.0]], ids=str)
def test_grad_norms_slope_is_the_derivative_of_its_loss(wanted: list[float]) -> None:
    lengths, losses = np.array([2.0, 1.0, 4.0]), np.array([0.5, 0.9, 0.2])
    scheme = weighting_for(GradNormWeights(alpha=1.5, lr=1e-3), wanted, epoch=1)
    share = np.array(wanted) / np.mean(wanted)
    fed(scheme, [[1.0, 1.0, 1.0]])  # what losses were at first; no gradients were told

    fed(scheme, [losses.tolist()], torch.tensor(lengths, dtype=torch.float32))

    rate = losses / losses.mean()
    pulled = share * lengths
    target = pulled.mean() * share * rate**1.5

    def loss(at: np.ndarray) -> float:
        return float(np.abs(at * pulled - target).sum())

    step = 1e-6
    slope = [loss(np.exp(step * e)) - loss(np.exp(-step * e)) for e in np.eye(3)]
    moved = share * np.exp(-1e-3 * np.array(slope) / (2 * step) / pulled.mean())
    np.testing.assert_allclose(scheme.weights().numpy(), moved * 3 / moved.sum(), rtol=1e-5)


def test_grad_norm_asks_for_gradients_every_so_many_steps() -> None:
    scheme = weighting_for(GradNormWeights(every=3), [1.0, 1.0], epoch=1)
    asked = []

    for _ in range(7):
        asked.append(scheme.wants_gradients())
        fed(scheme, [[1.0, 1.0]])

    assert asked == [True, False, False, True, False, False, True]


# ---------------------------------------------------------------- DWA


def test_dwa_is_its_formula_on_windows_means() -> None:
    config = DwaWeights(temperature=2.0, window=2)
    windows = np.array([[[4.0, 1.0], [2.0, 1.0]], [[2.0, 0.8], [1.0, 1.0]]])

    scheme = fed(weighting_for(config, [1.0, 1.0], epoch=9), windows.reshape(-1, 2).tolist())

    older, newer = windows.mean(axis=1)
    power = np.exp(newer / older / 2.0)
    np.testing.assert_allclose(scheme.weights().numpy(), 2 * power / power.sum(), rtol=1e-5)


def test_dwa_weighs_alike_until_two_windows_are_over() -> None:
    scheme = weighting_for(DwaWeights(), [1.0, 2.0], epoch=3)

    fed(scheme, [[5.0, 0.1]] * 5)

    assert scheme.weights().tolist() == [1.0, 2.0]


def test_dwa_does_not_see_the_noise_of_single_steps() -> None:
    draw = np.random.default_rng(0)
    noise = draw.uniform(0, 2, (400, 2))
    means = [[1.0, 1.0], [0.5, 1.0]]
    scheme = weighting_for(DwaWeights(window=200), [1.0, 1.0], epoch=1)

    fed(scheme, (noise * np.repeat(means, 200, axis=0)).tolist())

    quick, slow = scheme.weights().tolist()
    assert quick < slow
    assert quick == pytest.approx(2 / (1 + math.exp(0.25)), abs=0.06)


def test_dwa_learns_nothing_of_a_window_in_which_nothing_counted() -> None:
    scheme = weighting_for(DwaWeights(window=1), [1.0, 1.0], epoch=1)

    fed(scheme, [[2.0, 0.0], [2.0, 3.0]])

    assert scheme.weights().tolist() == pytest.approx([1.0, 1.0])


def test_dwas_windows_are_means_over_the_steps_in_which_something_counted() -> None:
    config, alike = DwaWeights(window=3), [[4.0, 1.0], [2.0, 1.0], [3.0, 1.0]]
    some = [*alike, [2.0, 0.0], [2.0, 0.5], [2.0, 0.0]]
    every = [*alike, [2.0, 0.5], [2.0, 0.5], [2.0, 0.5]]

    found, wanted = (fed(weighting_for(config, [1.0, 1.0], 1), rows) for rows in (some, every))

    torch.testing.assert_close(found.weights(), wanted.weights())


def test_dwa_keeps_to_what_it_knows_of_one_without_a_turn() -> None:
    scheme = weighting_for(DwaWeights(window=1), [1.0, 1.0], epoch=1)
    fed(scheme, [[2.0, 2.0]])

    with torch.no_grad():
        scheme.observe(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))

    quick, idle = scheme.weights().tolist()
    assert quick < idle
    assert nn.functional.softmax(torch.tensor([0.25, 0.5]), 0)[0] * 2 == pytest.approx(quick)
