"""Contrastive losses against formulas in float64 NumPy, over one rank and over two."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from tests.training.losses.computed import Floats, computed, departure, groups_of, slopes, units
from tests.training.ranks import Ranks
from torch import Tensor

from tectum_train.losses import contrastive
from tectum_train.losses.contrastive import (
    Older,
    batch_info_nce,
    info_nce,
    multi_positive_cross_entropy,
    nt_xent,
    queue_info_nce,
    sigmoid_pairs,
)

SEEDS = st.integers(0, 2**32)


# ---------------------------------------------------------------- the formulas, in NumPy


def formula_nt_xent(first: Floats, second: Floats, temperature: float) -> float:
    views = np.concatenate([first, second])
    views = views / np.linalg.norm(views, axis=1, keepdims=True)
    logits = views @ views.T / temperature
    np.fill_diagonal(logits, -np.inf)
    partner = np.roll(np.arange(len(views)), len(first))
    return float(-log_softmax(logits, axis=1)[np.arange(len(views)), partner].mean())


# ---------------------------------------------------------------- NT-Xent


@given(st.integers(1, 9), SEEDS, st.floats(0.05, 2))
def test_nt_xent_is_its_formula(pictures: int, seed: int, temperature: float) -> None:
    draw = np.random.default_rng(seed)
    first, second = draw.normal(size=(2, pictures, 5))

    found = computed("nt_xent", first=first, second=second, temperature=temperature)["loss"]

    assert np.isclose(found, formula_nt_xent(first, second, temperature), rtol=1e-9, atol=1e-12)


def test_nt_xents_gradient_is_its_formulas() -> None:
    first, second = np.random.default_rng(7).normal(size=(2, 4, 3))

    found = computed("nt_xent", first=first, second=second, temperature=0.3)

    assert np.allclose(
        found["first"], slopes(lambda x: formula_nt_xent(x, second, 0.3), first), atol=1e-7
    )
    assert np.allclose(
        found["second"], slopes(lambda x: formula_nt_xent(first, x, 0.3), second), atol=1e-7
    )


def test_nt_xent_over_two_ranks_is_that_of_one(ranks: Ranks) -> None:
    first, second = np.random.default_rng(3).normal(size=(2, 6, 5))

    assert departure(ranks, "nt_xent", first=first, second=second, temperature=0.2) <= 1e-6


def test_nt_xent_of_equal_views_is_the_logarithm_of_all_the_others() -> None:
    same = torch.ones(8, 4)

    loss, _ = nt_xent(same, same, 0.1)

    assert torch.isclose(loss, torch.tensor(np.log(15.0), dtype=torch.float32))


# ---------------------------------------------------------------- a queue


def formula_queue(queries: Floats, keys: Floats, queue: Floats) -> float:
    logits = np.concatenate([(queries * keys).sum(1, keepdims=True), queries @ queue.T], axis=1)
    return float(-log_softmax(logits / 0.2, axis=1)[:, 0].mean())


@given(st.integers(1, 6), st.integers(1, 9), SEEDS)
def test_a_queues_loss_and_gradient_are_its_formulas(rows: int, length: int, seed: int) -> None:
    queries, keys, queue = units(rows, seed), units(rows, seed + 1), units(length, seed + 2)

    found = computed("queue", queries=queries, keys=keys, queue=queue)

    assert np.isclose(found["loss"], formula_queue(queries, keys, queue), rtol=1e-9)
    expected = slopes(lambda x: formula_queue(x, keys, queue), queries)
    assert np.allclose(found["queries"], expected, atol=1e-7)


def test_a_queues_loss_over_two_ranks_is_that_of_one(ranks: Ranks) -> None:
    given_ = {"queries": units(6, 1), "keys": units(6, 2), "queue_shared": units(4, 3)}

    assert departure(ranks, "queue", **given_) <= 1e-6


# ---------------------------------------------------------------- the batch's own keys


@given(st.integers(1, 9), SEEDS)
def test_a_batchs_loss_and_gradient_are_their_formulas(rows: int, seed: int) -> None:
    queries, keys = units(rows, seed), units(rows, seed + 1)

    found = computed("batch", queries=queries, keys=keys)

    logarithms = log_softmax(queries @ keys.T / 0.2, axis=1)
    # Twice the temperature undoes what it does to the gradient.
    assert np.isclose(found["loss"], -0.4 * np.diagonal(logarithms).mean(), rtol=1e-9, atol=1e-12)
    apart = (np.exp(logarithms) - np.eye(rows)) * 2 / rows
    assert np.allclose(found["queries"], apart @ keys, rtol=1e-9, atol=1e-12)
    assert np.allclose(found["keys"], apart.T @ queries, rtol=1e-9, atol=1e-12)


def test_a_batchs_loss_over_two_ranks_is_that_of_one(ranks: Ranks) -> None:
    assert departure(ranks, "batch", queries=units(6, 1), keys=units(6, 2)) <= 1e-6


def test_a_batchs_nearest_key_is_a_hit_where_it_is_the_own_one() -> None:
    _, hit = batch_info_nce(torch.eye(4)[[1, 1, 2, 0]], torch.eye(4), 0.2)

    assert hit.tolist() == [False, True, True, False]


# ---------------------------------------------------------------- laws


@given(st.integers(2, 8), SEEDS)
def test_the_order_of_a_batch_does_not_matter(rows: int, seed: int) -> None:
    left, right, group = units(rows, seed), units(rows, seed + 1), groups_of(rows, seed)
    order = np.random.default_rng(seed).permutation(rows)

    given_: dict[str, Any] = {"left": left, "right": right, "group": group, "scale": 10.0}
    mixed = given_ | {key: given_[key][order] for key in ("left", "right", "group")}
    biased: dict[str, Any] = {"bias": -5.0}
    for name, more in (("info_nce", dict[str, Any]()), ("gather", biased)):
        loss = computed(name, **given_, **more)["loss"]
        assert np.isclose(loss, computed(name, **mixed, **more)["loss"], rtol=1e-9)
    loss = computed("nt_xent", first=left, second=right, temperature=0.1)["loss"]
    again = computed("nt_xent", first=left[order], second=right[order], temperature=0.1)["loss"]
    assert np.isclose(loss, again, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_stay_finite_at_the_largest_scale(dtype: torch.dtype) -> None:
    left = torch.from_numpy(units(8, 0)).to(dtype).requires_grad_()
    right, group = torch.from_numpy(units(8, 1)).to(dtype), torch.arange(8)
    scale = torch.tensor(100.0)
    older = Older(right.flip(0), left.detach(), group + 8, group >= 0)

    losses = [
        info_nce(left, right, scale, group)[0],
        info_nce(left, right, scale, group, hardest=2)[0],
        info_nce(left, right, scale, group, older=older)[0],
        sigmoid_pairs(left, right, scale, torch.tensor(-10.0), group)[0],
        nt_xent(left, right, 0.01)[0],
        queue_info_nce(left, right, right, 0.01)[0],
        batch_info_nce(left, right, 0.01)[0],
    ]

    (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), left)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses)
    assert gradient.isfinite().all()


LEFT, RIGHT = (torch.from_numpy(units(8, seed)).float() for seed in (0, 1))
EVERY: dict[str, Callable[[Tensor], Tensor]] = {
    "multi_positive_cross_entropy": lambda x: multi_positive_cross_entropy(
        100 * (x[:, None] * RIGHT).sum(dim=2), torch.eye(8, dtype=torch.bool)
    ).mean(),
    "info_nce": lambda x: info_nce(x, RIGHT, torch.tensor(100.0), torch.arange(8))[0],
    "sigmoid_pairs": lambda x: sigmoid_pairs(
        x, RIGHT, torch.tensor(100.0), torch.tensor(-10.0), torch.arange(8)
    )[0],
    "nt_xent": lambda x: nt_xent(x, RIGHT, 0.01)[0],
    "queue_info_nce": lambda x: queue_info_nce(x, RIGHT, LEFT, 0.01)[0],
    "batch_info_nce": lambda x: batch_info_nce(x, RIGHT, 0.01)[0],
}


def test_every_loss_is_among_those_tried_under_autocast() -> None:
    losses = {name for name in contrastive.__all__ if isfunction(getattr(contrastive, name))}

    assert losses == EVERY.keys()


@pytest.mark.parametrize("name", EVERY)
def test_under_autocast_losses_and_gradients_are_those_of_float32(name: str) -> None:
    found = []
    for low in (False, True):
        left = LEFT.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = EVERY[name](left)
        found.append((loss, *torch.autograd.grad(loss, left)))

    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_an_own_key_that_is_no_nearer_than_those_of_a_queue_is_no_hit() -> None:
    collapsed, key = torch.ones(3, 4) / 2, torch.eye(4)[:1]

    _, tied = queue_info_nce(collapsed, collapsed, collapsed, 0.1)
    _, told = queue_info_nce(key, key, torch.eye(4)[1:], 0.1)

    assert not tied.any()
    assert told.all()
