"""InfoNCE with several positives, against the formula in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tectum_train.losses.contrastive import multi_positive_cross_entropy

SENTENCES = st.lists(st.integers(0, 4), min_size=1, max_size=9)
SCALE = st.sampled_from([0.1, 1.0, 14.0, 100.0])


def drawn(size: int, scale: float, seed: int) -> NDArray[np.float32]:
    cosines = np.random.default_rng(seed).uniform(-1, 1, (size, size))
    return (scale * cosines).astype(np.float32)


def alike(sentences: list[int]) -> NDArray[np.bool_]:
    return np.equal.outer(sentences, sentences)


def both_ways(logits: Tensor, positive: Tensor) -> Tensor:
    forth = multi_positive_cross_entropy(logits, positive)
    return ((forth + multi_positive_cross_entropy(logits.t(), positive)) / 2).mean()


def loss_of(logits: NDArray[np.float32], sentences: list[int]) -> float:
    return float(both_ways(torch.from_numpy(logits), positives(sentences)))


def positives(sentences: list[int]) -> Tensor:
    return torch.from_numpy(alike(sentences))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float64)


def by_hand(logits: NDArray[np.float64], sentences: list[int]) -> float:
    """L_out of SupCon, both ways: the mean over a row's positives of -log p."""
    total = 0.0
    for scores in (logits, logits.T):
        probabilities = log_softmax(scores)
        for row, sentence in enumerate(sentences):
            right = [column for column, other in enumerate(sentences) if other == sentence]
            total -= probabilities[row, right].mean() / len(sentences) / 2
    return total


@given(SENTENCES, SCALE, st.integers(0, 999))
def test_the_loss_is_the_formulas(sentences: list[int], scale: float, seed: int) -> None:
    logits = drawn(len(sentences), scale, seed)

    assert loss_of(logits, sentences) == pytest.approx(
        by_hand(logits.astype(np.float64), sentences), rel=2e-5, abs=1e-6
    )


@given(SENTENCES, SCALE, st.integers(0, 999))
def test_the_gradient_is_the_formulas(sentences: list[int], scale: float, seed: int) -> None:
    logits = drawn(len(sentences), scale, seed)
    leaf = torch.from_numpy(logits).requires_grad_()

    both_ways(leaf, positives(sentences)).backward()

    # d/dx of cross-entropy: softmax less target, a mean over rows, half of either direction.
    target = alike(sentences) / alike(sentences).sum(axis=1, keepdims=True)
    wide = logits.astype(np.float64)
    rows, columns = np.exp(log_softmax(wide)), np.exp(log_softmax(wide.T))
    expected = ((rows - target) + (columns - target).T) / (2 * len(sentences))
    assert leaf.grad is not None
    assert np.allclose(leaf.grad.numpy(), expected, atol=1e-6)


def test_the_gradient_agrees_with_finite_differences() -> None:
    sentences = [0, 1, 0, 2]
    wide = drawn(4, 3.0, 1).astype(np.float64)
    leaf = torch.from_numpy(wide.astype(np.float32)).requires_grad_()

    both_ways(leaf, positives(sentences)).backward()

    assert leaf.grad is not None
    for place in np.ndindex(4, 4):
        step = np.zeros((4, 4))
        step[place] = 1e-5
        slope = (by_hand(wide + step, sentences) - by_hand(wide - step, sentences)) / 2e-5
        assert float(leaf.grad[place]) == pytest.approx(slope, abs=1e-6)


@given(st.integers(1, 64), st.floats(-50, 50))
def test_equal_logits_and_distinct_sentences_cost_ln_b(size: int, level: float) -> None:
    logits = np.full((size, size), level, np.float32)

    assert loss_of(logits, list(range(size))) == pytest.approx(math.log(size), abs=1e-5)


@given(SENTENCES, st.integers(0, 999), st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(
    sentences: list[int], seed: int, random: object
) -> None:
    logits = drawn(len(sentences), 14.0, seed)
    order = np.random.default_rng(seed).permutation(len(sentences))

    shuffled = loss_of(logits[order][:, order], [sentences[i] for i in order])

    assert shuffled == pytest.approx(loss_of(logits, sentences), rel=1e-5, abs=1e-6)


@given(SENTENCES, st.integers(0, 999))
def test_images_and_sentences_are_treated_alike(sentences: list[int], seed: int) -> None:
    logits = drawn(len(sentences), 14.0, seed)

    turned = loss_of(np.ascontiguousarray(logits.T), sentences)

    assert turned == pytest.approx(loss_of(logits, sentences), rel=1e-5, abs=1e-6)


def test_frames_of_one_sentence_are_not_pushed_apart() -> None:
    leaf = torch.zeros(4, 4, requires_grad=True)

    both_ways(leaf, positives([7, 7, 8, 9])).backward()

    assert leaf.grad is not None
    assert leaf.grad[0, 1] < 0  # the loss falls as the other frame's equal sentence comes closer
    assert leaf.grad[0, 2] > 0


def test_large_logits_do_not_overflow() -> None:
    logits = 100 * (2 * torch.eye(5) - 1)

    own = torch.eye(5, dtype=torch.bool)
    assert both_ways(logits, own) < 1e-6
    assert float(both_ways(-logits, own)) == pytest.approx(200 + math.log(4), rel=1e-5)


@given(SENTENCES, st.integers(0, 999))
def test_columns_that_are_not_allowed_are_as_if_they_were_not_there(
    sentences: list[int], seed: int
) -> None:
    size, draw = len(sentences), np.random.default_rng(seed)
    logits, others = drawn(size, 14.0, seed), drawn(size, 14.0, seed + 1)
    where = draw.permutation(2 * size)
    wide = np.concatenate([logits, others], axis=1)[:, where]
    positive = np.concatenate([alike(sentences), np.zeros((size, size), bool)], axis=1)[:, where]
    leaf = torch.from_numpy(wide).requires_grad_()

    found = multi_positive_cross_entropy(
        leaf, torch.from_numpy(positive), torch.from_numpy(np.tile(where < size, (size, 1)))
    )
    found.sum().backward()

    alone = multi_positive_cross_entropy(torch.from_numpy(logits), positives(sentences))
    assert torch.allclose(found, alone, rtol=1e-5, atol=1e-6)
    assert leaf.grad is not None
    assert not leaf.grad[:, where >= size].any()
