"""Probes against scikit-learn; penalties chosen on episodes that were set aside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from tectum_train.evaluation.measuring.probes import Pca, classify, fit_ridge, r_squared, set_aside

Array = NDArray[np.float64]


def linear(samples: int, features: int, outputs: int, noise: float, seed: int = 0) -> list[Array]:
    """Features of unequal scale and offset, and what depends on them."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(samples, features)) * draw.uniform(0.1, 30, features) + 5
    y = x @ draw.normal(size=(features, outputs)) + noise * draw.normal(size=(samples, outputs))
    return [x, y]


def each_its_own(samples: int) -> NDArray[np.int64]:
    """Episodes of one frame."""
    return np.arange(samples)


def alike(episodes: int, features: int, seed: int) -> tuple[Array, NDArray[np.int64], Array]:
    """Episodes of ten frames with a look of their own, which tells a memory of them apart.

    Gives features, episode, and a cause that only the first feature shows.
    """
    draw = np.random.default_rng(seed)
    episode = np.repeat(np.arange(episodes), 10)
    cause = draw.normal(size=len(episode))
    looks = draw.normal(size=(episodes, features))[episode]
    x = np.hstack([cause[:, None] + draw.normal(size=(len(episode), 1)), looks])
    return x, episode, cause


def scalings(x: Array) -> list[Callable[[Array], Array]]:
    """Each feature by its own spread, and all of them by one."""
    own, common = StandardScaler().fit(x), float(np.sqrt(x.var(axis=0).mean()))
    return [own.transform, lambda new: (new - x.mean(axis=0)) / common]


# ---------------------------------------------------------------- what is set aside


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60).filter(lambda e: len(set(e)) > 1))
def test_whole_episodes_are_set_aside_a_fifth_of_them_and_at_least_one(numbers: list[int]) -> None:
    episode = np.array(numbers)

    aside = set_aside(episode)

    chosen, rest = set(episode[aside]), set(episode[~aside])
    assert not chosen & rest
    assert len(chosen) == max(1, len(set(numbers)) // 5)


def test_of_one_episode_the_last_fifth_is_set_aside() -> None:
    assert set_aside(np.zeros(10, np.int64)).tolist() == [False] * 8 + [True] * 2


# ---------------------------------------------------------------- ridge


def ridges(
    x: Array, y: Array, episode: NDArray[np.int64], penalties: tuple[float, ...]
) -> list[tuple[float, int, float]]:
    """scikit-learn's error on the episodes set aside, by scaling and penalty."""
    aside = set_aside(episode)
    found = []
    for number, scaled in enumerate(scalings(x)):
        seen = scaled(x)
        for penalty in penalties:
            theirs = Ridge(alpha=float((~aside).sum()) * penalty).fit(seen[~aside], y[~aside])
            error = np.square(theirs.predict(seen[aside]) - y[aside]).mean()
            found.append((float(error), number, penalty))
    return found


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_ridge_is_scikit_learns_on_features_scaled_as_serves_episodes_set_aside(
    penalty: float,
) -> None:
    x, y = linear(80, 6, 3, noise=4.0)
    episode = each_its_own(60)
    _, number, _ = min(ridges(x[:60], y[:60], episode, (penalty,)))
    scaled = scalings(x[:60])[number]

    found = fit_ridge(x[:60], y[:60], x[60:], episode, penalties=(penalty,))

    theirs = Ridge(alpha=60 * penalty).fit(scaled(x[:60]), y[:60])
    assert np.allclose(found, theirs.predict(scaled(x[60:])), rtol=1e-8)


def test_scaling_and_penalty_are_chosen_on_the_episodes_that_are_set_aside() -> None:
    penalties, chosen = (1.0, 1e-2, 1e-4), set[tuple[int, float]]()
    for seed, noise in ((0, 60.0), (1, 0.0), (2, 300.0), (3, 60.0)):
        x, y = linear(60, 40, 2, noise, seed)
        _, number, best = min(ridges(x[:50], y[:50], each_its_own(50), penalties))
        scaled = scalings(x[:50])[number]
        chosen.add((number, best))

        found = fit_ridge(x[:50], y[:50], x[50:], each_its_own(50), penalties)

        theirs = Ridge(alpha=50 * best).fit(scaled(x[:50]), y[:50])
        assert np.allclose(found, theirs.predict(scaled(x[50:])), rtol=1e-8)
    assert len({number for number, _ in chosen}) == 2
    assert len({best for _, best in chosen}) > 1


@pytest.mark.parametrize("loud", [True, False])
def test_a_cause_is_found_where_it_varies_most_and_where_it_varies_least(loud: bool) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(260, 60))
    x[:, 0] *= 30 if loud else 0.1
    y = x[:, :1] * (1 / 30 if loud else 10) + 0.5 * draw.normal(size=(260, 1))

    found = fit_ridge(x[:80], y[:80], x[80:], each_its_own(80))

    # Of a variance of 1.25 a fifth is noise.
    assert r_squared(found, y[80:])[0] > (0.77 if loud else 0.5)


def test_what_is_only_remembered_of_an_episode_does_not_choose_ridges_penalty() -> None:
    x, episode, cause = alike(60, 40, seed=0)
    asked, _, truth = alike(60, 40, seed=50)
    # Each episode has an offset, which its look tells to whoever has seen that episode.
    targets = cause + np.random.default_rng(9).normal(size=60)[episode]

    grouped = fit_ridge(x, targets[:, None], asked, episode)
    by_frames = fit_ridge(x, targets[:, None], asked, each_its_own(600))

    assert r_squared(grouped, truth[:, None])[0] > 0.1
    assert r_squared(by_frames, truth[:, None])[0] < 0


def test_the_test_samples_choose_nothing() -> None:
    x, y = linear(60, 6, 2, noise=1.0)
    episode = each_its_own(50)

    one, all_ = (fit_ridge(x[:50], y[:50], x[50:end], episode) for end in (51, 60))

    assert np.allclose(one, all_[:1])


def test_a_line_is_found_whatever_the_features_scale() -> None:
    x, y = linear(200, 5, 2, noise=0.0)
    x = x * [1e-3, 1, 1e3, 1, 1]

    found = fit_ridge(x[:150], y[:150], x[150:], each_its_own(150))

    assert np.all(r_squared(found, y[150:]) > 0.9999)


def test_features_that_never_change_say_nothing() -> None:
    x, y = linear(60, 4, 1, noise=0.1)
    wide, episode = np.hstack([x, np.full((60, 2), 7.0)]), each_its_own(50)

    assert np.allclose(
        fit_ridge(wide[:50], y[:50], wide[50:], episode),
        fit_ridge(x[:50], y[:50], x[50:], episode),
    )


# ---------------------------------------------------------------- R²


def test_r_squared_is_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    true = draw.normal(size=(30, 3)) * [1, 10, 0.1]
    guess = true + draw.normal(size=(30, 3)) * [0.1, 20, 0.1]

    found = r_squared(guess, true)

    assert np.allclose(found, r2_score(true, guess, multioutput="raw_values"))


def test_r_squared_of_the_truth_is_one_and_of_the_mean_is_zero() -> None:
    true = np.random.default_rng(0).normal(size=(30, 2))

    assert np.allclose(r_squared(true, true), 1)
    assert np.allclose(r_squared(np.broadcast_to(true.mean(axis=0), true.shape), true), 0)


# ---------------------------------------------------------------- logistic regression


@pytest.mark.parametrize("classes", [2, 4])
def test_classes_are_scikit_learns(classes: int) -> None:
    draw = np.random.default_rng(classes)
    labels = draw.integers(classes, size=150)
    x = (draw.normal(size=(classes, 5)) * 1.5)[labels] + draw.normal(size=(150, 5))
    x = x * [1, 10, 0.1, 1, 1] + 3
    aside = set_aside(each_its_own(100))

    # Ours: mean cross-entropy + λ|w|². Theirs: C · summed cross-entropy + |w|²/2.
    def theirs(seen: Array, own: NDArray[np.int64]) -> LogisticRegression:
        model = LogisticRegression(C=1 / (2 * len(seen) * 1e-2), tol=1e-10, max_iter=5000)
        return model.fit(seen, own)

    def right(scaled: Callable[[Array], Array]) -> int:
        seen = scaled(x[:100])
        told = theirs(seen[~aside], labels[:100][~aside]).predict(seen[aside])
        return int((told == labels[:100][aside]).sum())

    found = classify(x[:100], labels[:100], x[100:], each_its_own(100), classes, penalties=(1e-2,))

    scaled = max(scalings(x[:100]), key=right)
    probabilities = theirs(scaled(x[:100]), labels[:100]).predict_proba(scaled(x[100:]))
    if classes == 2:  # theirs has one weight vector, ours two of half its length: |w|² differs
        assert np.array_equal(found.argmax(axis=1), probabilities.argmax(axis=1))
    else:
        assert np.allclose(np.exp(found), probabilities, atol=1e-3)
    assert np.allclose(np.exp(found).sum(axis=1), 1)


def test_classes_are_told_by_what_varies_most_where_nothing_else_tells() -> None:
    draw = np.random.default_rng(0)
    x, episode = draw.normal(size=(460, 60)), each_its_own(60)
    x[:, 0] *= 30
    labels = (x[:, 0] > 0).astype(np.int64)

    found = classify(x[:60], labels[:60], x[60:], episode, 2).argmax(axis=1)

    scaler = StandardScaler().fit(x[:60])
    alike = [
        LogisticRegression(C=c, max_iter=5000).fit(scaler.transform(x[:60]), labels[:60])
        for c in (1e-3, 1e-2, 1e-1, 1.0, 1e1)
    ]
    best = max(model.score(scaler.transform(x[60:]), labels[60:]) for model in alike)
    assert (found == labels[60:]).mean() > best + 0.05


def test_classes_far_apart_are_told_apart() -> None:
    labels = np.arange(60) % 3
    x = np.eye(3)[labels] * 10 + np.random.default_rng(0).normal(size=(60, 3))

    found = classify(x[:30], labels[:30], x[30:], each_its_own(30), 3)

    assert np.array_equal(found.argmax(axis=1), labels[30:])


def test_the_logistic_penalty_is_right_most_often_on_the_episodes_that_are_set_aside() -> None:
    penalties = (1.0, 1e-1, 1e-2, 1e-5)
    x, episode, cause = alike(40, 20, seed=0)
    asked, _, _ = alike(40, 20, seed=1)
    scaler = StandardScaler().fit(x)  # so that both scalings are one
    x, asked = scaler.transform(x), scaler.transform(asked)
    labels, aside = (cause > 0).astype(np.int64), set_aside(episode)
    fitted = [
        classify(x[~aside], labels[~aside], x[aside], each_its_own(int((~aside).sum())), 2, (p,))
        for p in penalties
    ]
    right = [int((scores.argmax(axis=1) == labels[aside]).sum()) for scores in fitted]

    found = classify(x, labels, asked, episode, 2, penalties)

    assert len(set(right)) > 1
    best = penalties[int(np.argmax(right))]
    assert np.allclose(found, classify(x, labels, asked, episode, 2, (best,)))


def test_a_class_without_samples_is_never_likely() -> None:
    labels = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 3))

    found = np.exp(classify(x, labels, x, each_its_own(40), 4))

    assert found.shape == (40, 4)
    assert found[:, 2:].max() < found[:, :2].min()


def test_fitting_is_repeatable_and_draws_nothing() -> None:
    labels = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 3))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    one, two = (classify(x, labels, x, each_its_own(40), 2) for _ in range(2))

    assert np.array_equal(one, two)
    assert torch.equal(torch.rand(2), expected)


# ---------------------------------------------------------------- principal components


def decaying(samples: int, features: int, seed: int = 0) -> NDArray[np.float32]:
    """Samples whose variance falls from axis to axis."""
    draw = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(draw.normal(size=(features, features)))
    scaled = draw.normal(size=(samples, features)) * 0.7 ** np.arange(features)
    return np.asarray(scaled @ turn + 3, np.float32)


def test_components_span_the_subspace_that_scikit_learn_finds() -> None:
    x = decaying(300, 20)

    found = Pca(x, 5)(x)

    theirs = PCA(5, svd_solver="full").fit_transform(x.astype(np.float64))
    ours, _ = np.linalg.qr(found - found.mean(axis=0))
    reference, _ = np.linalg.qr(theirs)
    assert np.linalg.svd(ours.T @ reference)[1].min() > 0.999  # cosines of the angles between


def test_components_come_in_order_of_their_variance() -> None:
    x = decaying(300, 20)

    found = Pca(x, 6)(x)

    theirs = PCA(6, svd_solver="full").fit(x.astype(np.float64))
    assert np.allclose(found.var(axis=0, ddof=1), theirs.explained_variance_, rtol=1e-3)
    assert np.allclose(found.mean(axis=0), 0, atol=1e-4)


def test_other_samples_are_projected_around_the_training_mean() -> None:
    x = decaying(300, 12)
    fitted = Pca(x, 4)

    assert np.allclose(fitted(x[:7]), fitted(x)[:7], atol=1e-5)
    assert np.allclose(fitted(x.mean(axis=0, keepdims=True)), 0, atol=1e-4)


def test_equal_seeds_find_equal_axes_and_leave_the_global_generator() -> None:
    x = decaying(50, 12)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    assert np.array_equal(Pca(x, 4)(x), Pca(x, 4)(x))
    assert torch.equal(torch.rand(2), expected)


def test_there_are_no_more_components_than_samples_have_dimensions() -> None:
    plane = decaying(40, 30)[:, :2] @ np.random.default_rng(0).normal(size=(2, 30))

    assert Pca(decaying(8, 30), 256)(decaying(3, 30)).shape[1] == 7  # one went to the mean
    assert Pca(plane, 256)(plane).shape == (40, 2)


def test_rounding_beyond_the_samples_rank_does_not_spoil_a_control() -> None:
    draw = np.random.default_rng(0)
    cause = draw.normal(size=(300, 2))
    pixels = (cause @ draw.normal(size=(2, 400)) + 2).astype(np.float32)
    reduced = Pca(pixels[:200], 256)

    found = fit_ridge(reduced(pixels[:200]), cause[:200], reduced(pixels[200:]), each_its_own(200))

    assert np.all(r_squared(found, cause[200:]) > 0.99)
