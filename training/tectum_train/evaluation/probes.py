"""Linear tools: PCA, ridge regression, logistic regression, R², all in float64.

Fitted on training episodes, measured on held-out ones. Letters: n samples, d features,
k outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

__all__ = ["Pca", "classify", "fit_ridge", "r_squared"]

Array = NDArray[np.float64]


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


def fit_ridge(
    train: NDArray[np.floating],
    targets: NDArray[np.floating],
    test: NDArray[np.floating],
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
) -> Array:
    """Predictions for `test` [m, d] of a ridge regression fitted on `train` [n, d].

    Features are standardised; the penalty, as a share of n, is chosen on the last fifth of
    the training samples, never on the test.
    """
    x, y = _standardised(train, train), np.asarray(targets, np.float64)
    cut = len(x) * 4 // 5
    losses = [
        float(np.square(_ridge(x[:cut], y[:cut], x[cut:], penalty) - y[cut:]).mean())
        for penalty in penalties
    ]
    best = penalties[int(np.argmin(losses))]
    return _ridge(x, y, _standardised(test, train), best)


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
    penalty: float = 1e-3,
) -> Array:
    """Log-probabilities [m, classes] of a logistic regression on standardised features."""
    x = torch.from_numpy(_standardised(train, train))
    y = torch.from_numpy(np.asarray(labels, np.int64))
    classes = int(y.max()) + 1
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + penalty * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    with torch.no_grad():
        scores = torch.from_numpy(_standardised(test, train)) @ weight + bias
        return scores.log_softmax(dim=1).numpy()


def _standardised(samples: NDArray[np.floating], reference: NDArray[np.floating]) -> Array:
    mean = np.asarray(reference, np.float64).mean(axis=0)
    spread = np.asarray(reference, np.float64).std(axis=0)
    return np.asarray((samples - mean) / np.maximum(spread, 1e-9), np.float64)


def _ridge(x: Array, y: Array, test: Array, penalty: float) -> Array:
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    x = x - centre
    gram = x.T @ x + penalty * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - mean))
    return np.asarray((test - centre) @ weights + mean, np.float64)
