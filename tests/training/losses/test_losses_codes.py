"""Losses of codes against formulas in float64 NumPy, over one rank and over two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from tests.training.ranks import Ranks

from tectum_train.distributed import world_size
from tectum_train.losses import codes as losses
from tectum_train.losses.codes import (
    code_cross_entropy,
    code_uses,
    commitment,
    majority,
    nearest,
    painting_error,
    perplexity,
    straight_through,
    sums_of_codes,
    usage,
)

Arrays = dict[str, NDArray[Any]]
SEEDS = st.integers(0, 2**32)
USES = st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any)


def drawn(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


# ---------------------------------------------------------------- the nearest


@given(st.integers(1, 20), st.integers(2, 9), st.integers(1, 6), SEEDS)
def test_the_nearest_code_is_the_one_that_lies_least_far(
    rows: int, size: int, width: int, seed: int
) -> None:
    vectors, codebook = drawn(rows, width, seed=seed), drawn(size, width, seed=seed + 1)

    found = nearest(torch.from_numpy(vectors), torch.from_numpy(codebook))

    distance = np.linalg.norm(vectors[:, None] - codebook[None], axis=2)
    assert found.tolist() == distance.argmin(axis=1).tolist()


def test_however_large_the_table_it_is_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codebook = (torch.from_numpy(drawn(11, 3, seed=seed)) for seed in (0, 1))
    codes = nearest(vectors, codebook)
    sums = sums_of_codes(vectors, codes, 11)

    monkeypatch.setattr(losses, "_HELD", 25)

    assert torch.equal(nearest(vectors, codebook), codes)
    torch.testing.assert_close(sums_of_codes(vectors, codes, 11), sums, rtol=1e-12, atol=0)


@given(st.integers(1, 20), st.integers(2, 9), SEEDS)
def test_sums_and_uses_are_those_of_each_codes_vectors(rows: int, size: int, seed: int) -> None:
    vectors = drawn(rows, 3, seed=seed)
    codes = np.random.default_rng(seed).integers(0, size, rows)
    expected = np.zeros((size, 3))
    np.add.at(expected, codes, vectors)

    sums = sums_of_codes(torch.from_numpy(vectors), torch.from_numpy(codes), size)
    uses = code_uses(torch.from_numpy(codes), size)

    assert np.allclose(sums.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert uses.tolist() == np.bincount(codes, minlength=size).tolist()


def test_a_quantised_vector_says_the_code_and_hands_its_gradient_on() -> None:
    vectors = torch.from_numpy(drawn(4, 3)).requires_grad_()
    quantised = torch.from_numpy(drawn(4, 3, seed=1)).requires_grad_()
    weight = torch.from_numpy(drawn(4, 3, seed=2))

    passed = straight_through(vectors, quantised)
    (passed * weight).sum().backward()

    torch.testing.assert_close(passed.detach(), quantised.detach())
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, weight)
    assert quantised.grad is None


# ---------------------------------------------------------------- losses


def committed(vectors: NDArray[np.float64], quantised: NDArray[np.float64]) -> Arrays:
    leaf = torch.from_numpy(vectors).requires_grad_()
    loss = commitment(leaf, torch.from_numpy(quantised))
    loss.backward()
    assert leaf.grad is not None
    return {"loss": loss.detach().numpy(), "gradient": leaf.grad.numpy() / world_size()}


def painted(said: NDArray[np.float64], true: NDArray[np.float64]) -> Arrays:
    leaf = torch.from_numpy(said).requires_grad_()
    loss = painting_error(leaf, torch.from_numpy(true))
    loss.backward()
    assert leaf.grad is not None
    return {"loss": loss.detach().numpy(), "gradient": leaf.grad.numpy() / world_size()}


def surprised(
    logits: NDArray[np.float64], codes: NDArray[np.int64], asked: NDArray[np.bool_]
) -> Arrays:
    leaf = torch.from_numpy(logits).requires_grad_()
    mask = torch.from_numpy(asked)
    loss, hit = code_cross_entropy(leaf[mask], torch.from_numpy(codes)[mask])
    loss.backward()
    assert leaf.grad is not None
    return {
        "loss": loss.detach().numpy(),
        "gradient": leaf.grad.numpy() / world_size(),
        "hit": hit.numpy(),
    }


@given(st.integers(1, 9), SEEDS)
def test_commitment_is_the_mean_squared_distance_to_the_codes(rows: int, seed: int) -> None:
    vectors, quantised = drawn(rows, 4, seed=seed), drawn(rows, 4, seed=seed + 1)

    found = committed(vectors, quantised)

    assert np.isclose(found["loss"], np.square(vectors - quantised).mean(), rtol=1e-12)
    assert np.allclose(found["gradient"], 2 * (vectors - quantised) / vectors.size, rtol=1e-12)


def test_commitment_does_not_move_the_codes() -> None:
    vectors, quantised = (torch.from_numpy(drawn(5, 4, seed=s)).requires_grad_() for s in (0, 1))

    commitment(vectors, quantised).backward()

    assert vectors.grad is not None
    assert quantised.grad is None


@given(st.integers(1, 5), SEEDS)
def test_the_error_of_painting_is_the_mean_square_of_the_difference(rows: int, seed: int) -> None:
    said, true = drawn(rows, 3, 4, seed=seed), drawn(rows, 3, 4, seed=seed + 1)

    found = painted(said, true)

    assert np.isclose(found["loss"], np.square(said - true).mean(), rtol=1e-12)
    assert np.allclose(found["gradient"], 2 * (said - true) / said.size, rtol=1e-12)


@given(st.integers(1, 9), st.integers(2, 7), SEEDS)
def test_the_cross_entropy_is_the_mean_surprise_of_the_true_codes(
    rows: int, size: int, seed: int
) -> None:
    logits, every = drawn(rows, size, seed=seed), np.arange(rows)
    codes = np.random.default_rng(seed).integers(0, size, rows)

    found = surprised(logits, codes, np.ones(rows, bool))

    assert np.isclose(found["loss"], -log_softmax(logits, axis=1)[every, codes].mean(), rtol=1e-12)
    expected = softmax(logits, axis=1)
    expected[every, codes] -= 1
    assert np.allclose(found["gradient"], expected / rows, rtol=1e-9, atol=1e-15)
    assert found["hit"].tolist() == (logits.argmax(axis=1) == codes).tolist()


def test_where_all_codes_are_alike_the_surprise_is_that_of_their_number() -> None:
    loss, _ = code_cross_entropy(torch.zeros(5, 64), torch.arange(5))

    assert loss.item() == pytest.approx(np.log(64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_at_scale_a_hundred_half_precision_stays_finite(dtype: torch.dtype) -> None:
    vectors = (100 * torch.from_numpy(drawn(6, 8))).to(dtype).requires_grad_()
    codes = nearest(vectors.detach(), torch.from_numpy(drawn(5, 8)).to(dtype))

    surprise, _ = code_cross_entropy(vectors, codes)
    loss = surprise + commitment(vectors, torch.zeros_like(vectors))
    loss = loss + painting_error(vectors[None], -vectors.detach()[None])
    loss.backward()

    assert loss.dtype == torch.float32
    assert bool(torch.isfinite(loss))
    assert vectors.grad is not None
    assert bool(torch.isfinite(vectors.grad).all())


@pytest.mark.parametrize(("loss", "shape"), [(committed, (8, 4)), (painted, (8, 3, 4))])
def test_over_two_ranks_what_is_lost_by_codes_is_that_of_one(
    ranks: Ranks, loss: Any, shape: tuple[int, ...]
) -> None:
    said, true = drawn(*shape), drawn(*shape, seed=1)
    names = ("vectors", "quantised") if loss is committed else ("said", "true")

    alone = loss(said, true)
    both = ranks.run(loss, **dict(zip(names, (said, true), strict=True)))

    assert np.isclose(np.mean([one["loss"] for one in both]), alone["loss"], rtol=1e-12)
    gradient = np.concatenate([one["gradient"] for one in both])
    assert np.allclose(gradient, alone["gradient"], rtol=1e-12)


def test_over_two_ranks_every_hidden_patch_counts_alike_however_unequally_they_are_shared(
    ranks: Ranks,
) -> None:
    logits, codes = drawn(8, 5), np.random.default_rng(0).integers(0, 5, 8)
    asked = np.array([True, False, False, False, True, True, True, True])

    alone = surprised(logits, codes, asked)
    both = ranks.run(surprised, logits=logits, codes=codes, asked=asked)

    assert np.isclose(np.mean([one["loss"] for one in both]), alone["loss"], rtol=1e-12)
    gradient = np.concatenate([one["gradient"] for one in both])
    assert np.allclose(gradient, alone["gradient"], rtol=1e-12, atol=1e-15)


# ---------------------------------------------------------------- whether a codebook lives


@given(USES)
def test_perplexity_is_the_exponent_of_the_entropy(uses: list[int]) -> None:
    found = float(perplexity(torch.tensor(uses, dtype=torch.float64)))

    assert found == pytest.approx(np.exp(entropy(uses)))
    assert 1 - 1e-9 <= found <= sum(use > 0 for use in uses) + 1e-9


@given(USES, st.randoms(use_true_random=False))
def test_what_shows_a_codebooks_life_does_not_ask_which_code_is_which(
    uses: list[int], shuffle: Any
) -> None:
    other = list(uses)
    shuffle.shuffle(other)

    for measure in (usage, perplexity, majority):
        one, two = (float(measure(torch.tensor(each).float())) for each in (uses, other))
        assert one == pytest.approx(two, rel=1e-5)


def test_usage_counts_codes_and_majority_the_commonest_ones_share() -> None:
    uses = torch.tensor([6.0, 0.0, 3.0, 1.0])

    assert float(usage(uses)) == 0.75
    assert float(majority(uses)) == pytest.approx(0.6)
    assert float(perplexity(torch.full((7,), 3.0))) == pytest.approx(7)
    assert float(perplexity(torch.tensor([0.0, 9.0]))) == pytest.approx(1)
