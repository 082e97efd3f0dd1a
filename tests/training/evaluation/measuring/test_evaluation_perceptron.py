"""The nonlinear control against boosted trees, and how it stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from tectum_train.evaluation.measuring import perceptron
from tectum_train.evaluation.measuring.perceptron import classify_nonlinearly
from tectum_train.evaluation.measuring.probes import classify, set_aside

Array = NDArray[np.float64]


def boxes(episodes: int, seed: int) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Places in a square, their episode, and in which of nine fields they lie, some fields alike.

    The first number is a thousand times the second's size.
    """
    draw = np.random.default_rng(seed)
    episode = np.repeat(np.arange(episodes), 10)
    place = draw.uniform(0, 3, (len(episode), 2))
    label = np.array([0, 1, 2, 2, 0, 1, 1, 2, 0])[place.astype(int) @ [3, 1]]
    return place * [1000, 1], episode, label


def accuracy(scores: Array, labels: NDArray[np.int64]) -> float:
    return float((scores.argmax(axis=1) == labels).mean())


def test_thresholds_are_found_as_well_as_by_boosted_trees() -> None:
    x, episode, labels = boxes(150, seed=0)
    asked, _, truth = boxes(150, seed=1)

    found = accuracy(classify_nonlinearly(x, labels, asked, episode, 3), truth)

    trees = HistGradientBoostingClassifier(random_state=0).fit(x, labels)
    assert found > trees.score(asked, truth) - 0.03
    assert found > accuracy(classify(x, labels, asked, episode, 3), truth) + 0.3


def test_log_probabilities_are_given_for_every_class() -> None:
    x, episode, labels = boxes(30, seed=0)

    found = classify_nonlinearly(x, labels, x[:7], episode, 3)

    assert found.shape == (7, 3)
    assert np.allclose(np.exp(found).sum(axis=1), 1)


def test_it_answers_as_it_did_when_it_was_best_on_the_episodes_set_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, episode, labels = boxes(40, seed=0)
    aside = set_aside(episode)
    # Asked about the very samples that are set aside, its accuracy there is what it stopped by.
    reached = []
    for epochs in range(1, 25):
        monkeypatch.setattr(perceptron, "_EPOCHS", epochs)
        scores = classify_nonlinearly(x, labels, x[aside], episode, 3)
        reached.append(accuracy(scores, labels[aside]))

    assert reached == sorted(reached)
    assert reached[-1] > reached[0]


def test_it_stops_when_nothing_gets_better(monkeypatch: pytest.MonkeyPatch) -> None:
    x, episode, _ = boxes(30, seed=0)
    # One class: right from the first epoch on.
    labels = np.zeros(len(x), np.int64)
    epochs: list[int] = []
    whole = torch.randperm

    def shuffled(count: int) -> torch.Tensor:
        epochs.append(count)
        return whole(count)

    monkeypatch.setattr(torch, "randperm", shuffled)

    classify_nonlinearly(x, labels, x, episode, 1)

    assert len(epochs) == perceptron._PATIENCE + 1


def test_it_repeats_itself_and_draws_nothing() -> None:
    x, episode, labels = boxes(20, seed=0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    one, two = (classify_nonlinearly(x, labels, x, episode, 3) for _ in range(2))

    assert np.array_equal(one, two)
    assert torch.equal(torch.rand(2), expected)


def test_a_number_that_never_changes_does_no_harm() -> None:
    x, episode, labels = boxes(60, seed=0)
    wide = np.hstack([x, np.full((len(x), 1), 7.0)])

    found = classify_nonlinearly(wide, labels, wide, episode, 3)

    assert np.isfinite(found).all()
    assert accuracy(found, labels) > 0.9
