"""Frozen features: how neighbours vote, and what trunk and controls are asked."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded

from tectum_train.data.samples import Samples
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.probes import set_aside
from tectum_train.evaluation.trunk.neighbours import (
    classify_by_neighbours,
    labelled_episodes,
    measure_features,
    nearest_told,
    spread,
)

# ---------------------------------------------------------------- the vote


def voted(
    train: NDArray[np.float64], labels: NDArray[np.int64], one: NDArray[np.float64], classes: int,
    neighbours: int, temperature: float,
) -> NDArray[np.float64]:  # fmt: skip
    """One sample's shares, as the definition has them."""
    cosine = train @ one / np.linalg.norm(train, axis=1) / np.linalg.norm(one)
    share = np.zeros(classes)
    for place in np.argsort(-cosine)[:neighbours]:
        share[labels[place]] += np.exp(cosine[place] / temperature)
    return np.asarray(share / share.sum(), np.float64)


@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 25), st.integers(0, 2**32))
def test_the_nearest_vote_with_exponential_weights(
    known: int, classes: int, neighbours: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    train, test = draw.normal(size=(known, 4)), draw.normal(size=(5, 4))
    labels = draw.integers(classes, size=known)

    found = classify_by_neighbours(train, labels, test, classes, neighbours, 0.07)

    wanted = [voted(train, labels, one, classes, neighbours, 0.07) for one in test]
    assert np.allclose(found, wanted, rtol=1e-9)
    assert np.allclose(found.sum(axis=1), 1)


def test_only_directions_count() -> None:
    draw = np.random.default_rng(0)
    train, labels, test = draw.normal(size=(30, 4)), np.arange(30) % 3, draw.normal(size=(8, 4))
    longer = train * draw.uniform(0.1, 10, (30, 1))

    one, other = (classify_by_neighbours(x, labels, test, 3) for x in (train, longer))

    assert np.allclose(one, other, rtol=1e-9)


def test_of_the_samples_themselves_the_nearest_is_the_sample() -> None:
    train, labels = np.random.default_rng(0).normal(size=(40, 6)), np.arange(40) % 4

    found = classify_by_neighbours(train, labels, train, 4, neighbours=1)

    assert np.array_equal(found.argmax(axis=1), labels)


def test_many_samples_are_asked_in_pieces_and_answered_alike() -> None:
    draw = np.random.default_rng(0)
    train, labels, test = draw.normal(size=(30, 4)), np.arange(30) % 3, draw.normal(size=(1100, 4))

    whole = classify_by_neighbours(train, labels, test, 3)

    assert whole.shape == (1100, 3)
    assert np.allclose(whole[600:700], classify_by_neighbours(train, labels, test[600:700], 3))


# ---------------------------------------------------------------- the measure


LENGTH = 72


def scene(families: Sequence[int], seed: int) -> Samples:
    """Episodes of grey noise; the first pixel alone says which family it is, where it counts."""
    draw = np.random.default_rng(seed)
    lengths = [LENGTH] * len(families)
    frames = draw.integers(100, 156, (LENGTH * len(families), 4, 4, 3), dtype=np.uint8)
    family = np.repeat(np.array(families), LENGTH)
    frames[:, 0, 0, 0] = 10 * family
    return recorded(lengths, {"task_family": family}, frames)


def seeing(weight: float) -> Any:
    """A trunk whose vectors show the first pixel so much, among what says nothing."""

    def embed(frames: Sequence[NDArray[np.uint8]], vector: str) -> NDArray[np.float32]:
        assert vector == "pooled"
        rows = []
        for frame in frames:
            shown = np.eye(8)[int(frame[0, 0, 0]) // 10] * weight
            rows.append([*shown, *(frame[1].reshape(-1) / 255 - 0.5)])
        return np.array(rows, np.float32)

    return SimpleNamespace(embed_images=embed)


def measured(families: Sequence[int], asked: Sequence[int], weight: float = 5.0) -> list[Any]:
    train, test = scene(families, 0), scene(asked, 1)
    return measure_features(context(train, test, predictor=seeing(weight), twin=seeing(0.0)))


def drawn(*weights: float) -> Any:
    """What random weights tell by each probe, if their draws see so much."""
    train, test, twins = scene([0, 1] * 4, 0), scene([0, 1] * 3, 1), map(seeing, weights)
    *told, _ = measure_features(context(train, test, predictor=seeing(0.0), twins=tuple(twins)))
    return np.array([measure.controls["random init"] for measure in told])


def test_random_weights_tell_what_their_draws_tell_in_the_mean() -> None:
    blind, sharp = drawn(0.0), drawn(5.0)

    assert np.all(blind < sharp)
    assert np.allclose(drawn(0.0, 5.0), (blind + sharp) / 2)


def test_a_trunk_that_sees_the_task_is_told_from_one_that_does_not() -> None:
    near, linear, few, apart = measured([0, 1, 2] * 8, [0, 1, 2] * 4)

    assert near.value == linear.value == 1.0
    assert few.value > 0.8
    for measure in (near, linear, few):
        assert measure.controls["random init"] < 0.7
        assert measure.controls.keys() == {"random init", "PCA-256", "majority class"}
    assert near.passed
    assert near.gate == "above random init and PCA-256, each by ≥ two standard errors"
    assert (linear.passed, few.passed) == (None, None)
    assert near.on == "48 frames of 12 episodes"
    assert few.name == "frozen trunk → task from 10% of the labels"
    assert few.on == "3 labelled episodes, mean of 5 draws"
    assert near.errors.keys() == few.errors.keys() == near.controls.keys()
    assert apart.value > 0.5 < apart.controls["random init"]
    assert apart.passed is True


def test_what_scaling_hides_from_neighbours_is_found_by_standardised_components() -> None:
    draw = np.random.default_rng(0)
    labels, episode = np.repeat(np.arange(3), 40), np.arange(120) // 4
    light = draw.normal(0, 100, (120, 4))  # drowns what tells the task
    shown = np.concatenate([light, np.eye(3)[labels] + draw.normal(0, 0.1, (120, 3))], axis=1)
    shown = np.concatenate([shown, draw.normal(0, 1e-3, (120, 12))], axis=1)
    order = draw.permutation(30)
    taken = np.isin(episode, order[:24])

    plain = classify_by_neighbours(shown[taken], labels[taken], shown[~taken], 3)
    scaled = nearest_told(shown[taken], labels[taken], shown[~taken], episode[taken], 3)

    assert (plain.argmax(axis=1) == labels[~taken]).mean() < 0.7
    assert (scaled.argmax(axis=1) == labels[~taken]).mean() > 0.9


def test_neighbours_are_as_they_were_where_scaling_helps_nobody() -> None:
    draw = np.random.default_rng(0)
    labels, episode = np.repeat(np.arange(2), 40), np.arange(80) // 4
    shown = np.eye(2)[labels] + draw.normal(0, 0.01, (80, 2))

    scaled = nearest_told(shown, labels, shown, episode, 2)

    assert np.array_equal(scaled, classify_by_neighbours(shown, labels, shown, 2))


def test_a_scaling_is_chosen_on_episodes_that_the_choice_has_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = list[tuple[set[int], int]]()

    def noted(known: Any, labels: Any, asked: Any, classes: int) -> NDArray[np.float64]:
        seen.append((set(labels.tolist()), len(asked)))
        return classify_by_neighbours(known, labels, asked, classes)

    monkeypatch.setattr("tectum_train.evaluation.trunk.neighbours.classify_by_neighbours", noted)
    rows, episode = np.arange(80), np.arange(80) // 4
    shown, aside = np.random.default_rng(0).normal(size=(80, 40)), set_aside(episode)

    nearest_told(shown, rows, np.ones((7, 40)), episode, 80)

    *choices, told = seen  # each sample has a label of its own
    blind = (set(rows[~aside].tolist()), aside.sum())
    assert choices == [blind] * 3  # as they are, 32 and 16 components
    assert told == (set(range(80)), 7)


def test_vectors_that_are_one_but_for_a_trifle_have_no_spread() -> None:
    vectors = 1.0 + 1e-3 * np.random.default_rng(0).normal(size=(50, 8))

    assert spread(vectors) == pytest.approx(1e-3, rel=0.2)
    assert spread(np.random.default_rng(0).normal(size=(500, 8))) == pytest.approx(1, abs=0.05)


def test_a_trunk_that_sees_no_more_than_its_random_twin_fails() -> None:
    near, *_ = measured([0, 1, 2] * 8, [0, 1, 2] * 2, weight=0.0)

    assert near.passed is False
    assert near.value == near.controls["random init"]


def test_the_majority_is_that_of_the_training_episodes() -> None:
    near, *_ = measured([0, 0, 0, 1], [0, 1, 1, 1])

    assert near.controls["majority class"] == 0.25


def test_families_need_not_be_numbered_without_gaps_nor_all_be_in_both_splits() -> None:
    near, linear, *_ = measured([2, 5] * 6, [2, 5, 7])

    assert near.value == linear.value == pytest.approx(2 / 3)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.integers(0, 2**32),
)
def test_few_labels_are_whole_episodes_and_some_of_every_task(
    families: list[int], share: float, seed: int
) -> None:
    episode = np.repeat(np.arange(len(families)) * 3, 4)
    labels = np.repeat(np.array(families), 4)

    chosen = labelled_episodes(episode, labels, share, np.random.default_rng(seed))

    taken = np.unique(episode[chosen]) // 3
    assert np.array_equal(chosen, np.isin(episode, taken * 3))
    for family in set(families):
        own = sum(families[one] == family for one in taken)
        assert own == max(1, round(share * families.count(family)))


def test_of_one_family_there_is_nothing_to_tell_apart() -> None:
    with pytest.raises(NothingToMeasure, match="all is of one task"):
        measured([1, 1], [1])


def test_without_a_second_half_nothing_is_measured() -> None:
    single = recorded([1, 1], {"task_family": np.arange(2)})

    with pytest.raises(NothingToMeasure, match="no episode has a second half"):
        measure_features(context(single, single))
