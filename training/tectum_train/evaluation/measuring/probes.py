"""Linear tools: PCA, ridge regression, logistic regression, R², all in float64.

Fitted on training episodes, measured on held-out ones. A control is as strong as its penalty
is well chosen: each is chosen on training episodes that the choice's own fit has not seen,
for frames of one episode are too alike to tell how much is enough. So is whether each feature
counts alike or as much as it varies: principal components of pixels tell more as they vary, a
trunk's vectors standardised, and whoever is given one of the two alone is judged too low.

Letters: n samples, d features, k outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

__all__ = ["EDITION", "Pca", "classify", "fit_ridge", "r_squared", "set_aside"]

Array = NDArray[np.float64]

EDITION = 2
"""Raised with whatever changes what a probe says, so that numbers of two editions are not compared.
2: it is chosen whether features count alike or as they vary."""

# From strong to weak: of penalties that do equally well, the first is taken.
_RIDGE = (1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4)
_LOGISTIC = (1e0, 3e-1, 1e-1, 3e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_MOST_STEPS = 200
"""Of a logistic regression's solver."""
_STILL = 1e-9
"""Features that vary no more than that say nothing."""


class Pca:
    """Principal components by randomised SVD.

    Args:
        samples: [n, d].
        components: how many, at most; no more than the samples' rank.
        seed: of the randomised SVD.
    """

    def __init__(self, samples: NDArray[np.floating], components: int, seed: int = 0) -> None:
        data = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        self._mean = data.mean(dim=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            count = min(components, *data.shape)
            _, spread, axes = torch.svd_lowrank(data - self._mean, q=count, niter=4)
        # Beyond the samples' own rank lies rounding, which standardising would blow up.
        self._axes = axes[:, spread > 1e-5 * spread.max()]

    def __call__(self, samples: NDArray[np.floating]) -> Array:
        """Coordinates [n, components]."""
        data = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return ((data - self._mean) @ self._axes).double().numpy()


def set_aside(episode: NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """Which training samples to choose on: those of a fifth of the episodes.

    Args:
        episode: int64[n], which episode each sample is of.
        seed: of which episodes.

    Returns:
        bool[n]; of a single episode, its last fifth.
    """
    episodes = np.unique(episode)
    if len(episodes) == 1:
        return np.arange(len(episode)) >= len(episode) * 4 // 5
    drawn = np.random.default_rng(seed).permutation(episodes)
    return np.isin(episode, drawn[: max(1, len(drawn) // 5)])


def fit_ridge(
    train: NDArray[np.floating],
    targets: NDArray[np.floating],
    test: NDArray[np.floating],
    episode: NDArray[np.int64],
    penalties: tuple[float, ...] = _RIDGE,
) -> Array:
    """Predictions for `test` [m, d] of a ridge regression fitted on `train` [n, d].

    Features are standardised, or scaled together; how, and the penalty, as a share of n, are those
    with the least error on the training episodes that are set aside.
    """
    y, aside = np.asarray(targets, np.float64), set_aside(episode)
    choices, losses = list[tuple[Scaling, float]](), list[float]()
    for scaling in _scalings(train):
        x = _scaled(train, scaling)
        for penalty in penalties:
            told = _ridge(x[~aside], y[~aside], x[aside], penalty)
            choices.append((scaling, penalty))
            losses.append(float(np.square(told - y[aside]).mean()))
    scaling, best = choices[int(np.argmin(losses))]
    return _ridge(_scaled(train, scaling), y, _scaled(test, scaling), best)


def r_squared(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> Array:
    """Share of variance explained, for each output: [m, k] and [m, k] to [k]; 1 is perfect."""
    truth = np.asarray(true, np.float64)
    residual = np.square(truth - predicted).sum(axis=0)
    total = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    return np.asarray(1 - residual / total, np.float64)


def classify(
    train: NDArray[np.floating],
    labels: NDArray[np.int64],
    test: NDArray[np.floating],
    episode: NDArray[np.int64],
    classes: int,
    penalties: tuple[float, ...] = _LOGISTIC,
) -> Array:
    """Log-probabilities [m, classes] of a logistic regression.

    Features are standardised, or scaled together; how, and the penalty, are those that are right
    most often on the training episodes that are set aside.
    """
    y, aside = np.asarray(labels, np.int64), set_aside(episode)
    choices, right = list[tuple[Scaling, float, Array]](), list[int]()
    for scaling in _scalings(train):
        x = _scaled(train, scaling)
        fit = np.zeros((x.shape[1] + 1, classes))
        for penalty in penalties:  # each from where the last one ended
            fit = _logistic(x[~aside], y[~aside], penalty, fit)
            choices.append((scaling, penalty, fit))
            right.append(int((_scores(x[aside], fit).argmax(axis=1) == y[aside]).sum()))
    scaling, best, fit = choices[int(np.argmax(right))]
    fit = _logistic(_scaled(train, scaling), y, best, fit)
    return np.asarray(log_softmax(_scores(_scaled(test, scaling), fit), axis=1), np.float64)


Scaling = tuple[Array, Array]
"""What is taken from each feature, and what it is divided by: [d] and [d]."""


def _scalings(reference: NDArray[np.floating]) -> Iterator[Scaling]:
    """Each feature by its own spread, and all by one: that of those that vary, on the mean."""
    wide = np.asarray(reference, np.float64)
    mean, spread = wide.mean(axis=0), wide.std(axis=0)
    yield mean, np.maximum(spread, _STILL)
    varying = spread[spread > _STILL]
    common = np.sqrt(np.square(varying).mean()) if len(varying) else 1.0
    yield mean, np.full_like(spread, common)


def _scaled(samples: NDArray[np.floating], scaling: Scaling) -> Array:
    mean, spread = scaling
    return np.asarray((samples - mean) / spread, np.float64)


def _ridge(x: Array, y: Array, test: Array, penalty: float) -> Array:
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    x = x - centre
    gram = x.T @ x + penalty * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - mean))
    return np.asarray((test - centre) @ weights + mean, np.float64)


def _logistic(x: Array, y: NDArray[np.int64], penalty: float, begin: Array) -> Array:
    """Weights [d, classes] and under them the bias, sought from `begin` on."""
    rows = np.arange(len(x))

    def loss(flat: Array) -> tuple[float, Array]:  # hundreds of times a fit: no pass too many
        fit = flat.reshape(begin.shape)
        scores = _scores(x, fit)
        scores -= scores.max(axis=1, keepdims=True)
        true = scores[rows, y]
        likely = np.exp(scores, out=scores)
        total = likely.sum(axis=1)
        value = penalty * np.square(fit[:-1]).sum() + (np.log(total) - true).mean()
        likely /= total[:, None]
        likely[rows, y] -= 1
        likely /= len(x)
        slope = np.vstack([x.T @ likely + 2 * penalty * fit[:-1], likely.sum(axis=0)])
        return float(value), slope.ravel()

    # Close enough that scikit-learn's own solution classifies alike; see the tests.
    options = {"maxiter": _MOST_STEPS, "gtol": 1e-7, "ftol": 1e-10}
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, np.float64).reshape(begin.shape)


def _scores(x: Array, fit: Array) -> Array:
    return np.asarray(x @ fit[:-1] + fit[-1], np.float64)
