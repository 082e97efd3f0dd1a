"""Contrastive losses against formulas in float64 NumPy, over one rank and over two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax
from tests.training.ranks import Ranks

from tectum_train.distributed import gather, world_size
from tectum_train.losses.contrastive import info_nce, nt_xent, queue_info_nce, sigmoid_pairs

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

SEEDS = st.integers(0, 2**32)


def units(rows: int, seed: int, width: int = 5) -> Floats:
    drawn = np.random.default_rng(seed).normal(size=(rows, width))
    found: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found


def groups_of(rows: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, max(2, rows // 2), rows)


# ---------------------------------------------------------------- the formulas, in NumPy


def formula_info_nce(
    left: Floats, right: Floats, scale: float, group: NDArray[np.int64], counted: NDArray[np.bool_]
) -> float:
    left, right, group = left[counted], right[counted], group[counted]
    total = 0.0
    for rows, columns in ((left, right), (right, left)):
        logarithms = log_softmax(scale * rows @ columns.T, axis=1)
        for row, own in enumerate(group):
            positives = np.flatnonzero(group == own)
            total -= logarithms[row, positives].mean() / 2
    return total / len(group)


def formula_sigmoid(
    left: Floats, right: Floats, scale: float, bias: float, group: NDArray[np.int64]
) -> float:
    logits = scale * left @ right.T + bias
    sign = np.where(group[:, None] == group[None, :], 1, -1)
    return float(np.logaddexp(0, -sign * logits).sum() / len(left))


def formula_nt_xent(first: Floats, second: Floats, temperature: float) -> float:
    views = np.concatenate([first, second])
    views = views / np.linalg.norm(views, axis=1, keepdims=True)
    logits = views @ views.T / temperature
    np.fill_diagonal(logits, -np.inf)
    partner = np.roll(np.arange(len(views)), len(first))
    return float(-log_softmax(logits, axis=1)[np.arange(len(views)), partner].mean())


# ---------------------------------------------------------------- what is computed


def computed(name: str, wide: bool = True, **given_: Any) -> Arrays:
    """A loss, and the gradients of its vectors and scalars, averaged over ranks."""
    dtype = torch.float64 if wide else torch.float32
    tensors = {
        key.removesuffix("_shared"): torch.from_numpy(np.array(value))
        for key, value in given_.items()
    }
    leaves = {
        key: value.to(dtype).requires_grad_()
        for key, value in tensors.items()
        if value.dtype.is_floating_point and key != "temperature"
    }
    tensors |= leaves
    match name:
        case "info_nce":
            loss, _ = info_nce(**tensors)
        case "nt_xent":
            loss, _ = nt_xent(tensors["first"], tensors["second"], float(tensors["temperature"]))
        case "queue":
            loss, _ = queue_info_nce(
                tensors["queries"], tensors["keys"].detach(), tensors["queue"].detach(), 0.2
            )
        case _:
            loss = sigmoid_pairs(**tensors, way=name)
    loss.backward()
    found = {"loss": loss.detach()}
    for key, leaf in leaves.items():
        if leaf.grad is None:
            continue
        if leaf.dim() == 0:  # a parameter: averaged as average_gradients does
            found[key] = gather(leaf.grad[None]).mean()
        else:
            found[key] = leaf.grad / world_size()
    return {key: value.numpy() for key, value in found.items()}


def departure(ranks: Ranks, name: str, **given_: Any) -> float:
    """How far two ranks' loss and gradients are from one rank's, relative to the largest."""
    alone = computed(name, **given_)
    both = ranks.run(computed, name=name, **given_)
    found: dict[str, Any] = {"loss": np.mean([one["loss"] for one in both])}
    for key in set(alone) - {"loss"}:
        parts = [one[key] for one in both]
        found[key] = parts[0] if alone[key].ndim == 0 else np.concatenate(parts)
    return max(
        float(np.abs(found[key] - alone[key]).max() / np.abs(alone[key]).max()) for key in alone
    )


# ---------------------------------------------------------------- InfoNCE


@given(st.integers(2, 9), SEEDS, st.floats(0.5, 100))
def test_info_nce_is_its_formula(rows: int, seed: int, scale: float) -> None:
    left, right, group = units(rows, seed), units(rows, seed + 1), groups_of(rows, seed)
    counted = np.random.default_rng(seed).random(rows) < 0.7
    counted[0] = True

    found = computed("info_nce", left=left, right=right, scale=scale, group=group, counted=counted)[
        "loss"
    ]

    assert np.isclose(found, formula_info_nce(left, right, scale, group, counted), rtol=1e-9)


def test_info_nce_over_two_ranks_is_that_of_one_however_unequally_samples_count(
    ranks: Ranks,
) -> None:
    counted = np.array([True, False, False, False, True, True, True, True])

    far = departure(
        ranks, "info_nce", left=units(8, 1), right=units(8, 2), scale=np.array(14.0),
        group=np.array([0, 1, 0, 2, 1, 1, 3, 0]), counted=counted, bias=np.array(-1.0),
    )  # fmt: skip

    assert far <= 1e-6


def test_info_nce_of_equal_vectors_is_the_logarithm_of_their_number() -> None:
    same = torch.ones(8, 4) / 2

    loss, _ = info_nce(same, same, torch.tensor(10.0), torch.arange(8))

    assert torch.isclose(loss, torch.tensor(np.log(8.0), dtype=torch.float32))


def test_the_nearest_of_its_group_is_a_hit() -> None:
    right = torch.eye(4)
    left = right[[1, 1, 2, 3]]

    _, hit = info_nce(left, right, torch.tensor(5.0), torch.tensor([0, 1, 1, 0]))

    # 0 is nearest to 1, of another group; 1 to itself; 2 to itself; 3 to itself
    assert hit.tolist() == [False, True, True, True]


# ---------------------------------------------------------------- SigLIP


@pytest.mark.parametrize("way", ["ring", "gather"])
@given(rows=st.integers(2, 9), seed=SEEDS, scale=st.floats(0.5, 50), bias=st.floats(-10, 1))
def test_sigmoid_pairs_are_their_formula(
    way: str, rows: int, seed: int, scale: float, bias: float
) -> None:
    left, right, group = units(rows, seed), units(rows, seed + 1), groups_of(rows, seed)

    found = computed(way, left=left, right=right, scale=scale, bias=bias, group=group)["loss"]

    assert np.isclose(found, formula_sigmoid(left, right, scale, bias, group), rtol=1e-9)


@pytest.mark.parametrize("way", ["ring", "gather"])
def test_sigmoid_pairs_over_two_ranks_are_those_of_one(ranks: Ranks, way: str) -> None:
    far = departure(
        ranks, way, left=units(6, 1), right=units(6, 2), scale=np.array(10.0),
        bias=np.array(-10.0), group=np.array([0, 1, 2, 0, 4, 5]),
    )  # fmt: skip

    assert far <= 1e-6


# ---------------------------------------------------------------- NT-Xent


@given(st.integers(1, 9), SEEDS, st.floats(0.05, 2))
def test_nt_xent_is_its_formula(pictures: int, seed: int, temperature: float) -> None:
    draw = np.random.default_rng(seed)
    first, second = draw.normal(size=(2, pictures, 5))

    found = computed("nt_xent", first=first, second=second, temperature=temperature)["loss"]

    assert np.isclose(found, formula_nt_xent(first, second, temperature), rtol=1e-9, atol=1e-12)


def test_nt_xent_over_two_ranks_is_that_of_one(ranks: Ranks) -> None:
    first, second = np.random.default_rng(3).normal(size=(2, 6, 5))

    assert departure(ranks, "nt_xent", first=first, second=second, temperature=0.2) <= 1e-6


def test_nt_xent_of_equal_views_is_the_logarithm_of_all_the_others() -> None:
    same = torch.ones(8, 4)

    loss, _ = nt_xent(same, same, 0.1)

    assert torch.isclose(loss, torch.tensor(np.log(15.0), dtype=torch.float32))


# ---------------------------------------------------------------- a queue


@given(st.integers(1, 6), st.integers(1, 9), SEEDS)
def test_a_queues_loss_is_its_formula(rows: int, length: int, seed: int) -> None:
    queries, keys, queue = units(rows, seed), units(rows, seed + 1), units(length, seed + 2)

    found = computed("queue", queries=queries, keys=keys, queue=queue)["loss"]

    logits = np.concatenate([(queries * keys).sum(1, keepdims=True), queries @ queue.T], axis=1)
    assert np.isclose(found, -log_softmax(logits / 0.2, axis=1)[:, 0].mean(), rtol=1e-9)


def test_a_queues_loss_over_two_ranks_is_that_of_one(ranks: Ranks) -> None:
    given_ = {"queries": units(6, 1), "keys": units(6, 2), "queue_shared": units(4, 3)}

    assert departure(ranks, "queue", **given_) <= 1e-6


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

    losses = [
        info_nce(left, right, scale, group)[0],
        sigmoid_pairs(left, right, scale, torch.tensor(-10.0), group),
        nt_xent(left, right, 0.01)[0],
        queue_info_nce(left, right, right, 0.01)[0],
    ]

    (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), left)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses)
    assert gradient.isfinite().all()
