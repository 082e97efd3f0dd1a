"""A small network on a few numbers: what they say of a class when lines do not suffice.

The nonlinear control beside `probes`. Each number is cut into quantile bins, so that a
threshold is as easy to find as a slope; on a robot's state that reaches what boosted trees reach.

Letters: n samples, d numbers, F features after binning.

Source: piecewise linear encoding, Gorishniy et al. 2022 (arXiv:2203.05556), section 3.2.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_train.evaluation.measuring.probes import set_aside

__all__ = ["classify_nonlinearly"]

_BINS, _WIDTH, _DROPOUT = 32, 128, 0.2
_LR, _DECAY, _BATCH = 2e-3, 1e-2, 256
_EPOCHS, _PATIENCE = 60, 10


def classify_nonlinearly(
    train: NDArray[np.floating],
    labels: NDArray[np.int64],
    test: NDArray[np.floating],
    episode: NDArray[np.int64],
    classes: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Log-probabilities [m, classes] for `test` [m, d] of a network trained on `train` [n, d].

    It stops when it gets no better on the training episodes that are set aside, and answers as
    it did when it was best. Draws nothing from the global generator.

    Args:
        train: [n, d].
        labels: int64[n].
        test: [m, d].
        episode: int64[n], which episode each training sample is of.
        classes: how many there are; a label that never occurs is never likely.
        seed: of weights, order and dropout.
    """
    aside = set_aside(episode)
    edges = np.quantile(train[~aside], np.linspace(0, 1, _BINS + 1), axis=0)
    x, chosen_on, asked = (_binned(part, edges) for part in (train[~aside], train[aside], test))
    y, truth = (torch.from_numpy(np.asarray(part, np.int64)) for part in (labels, labels[aside]))
    y = y[torch.from_numpy(~aside)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], _WIDTH), nn.GELU(), nn.Dropout(_DROPOUT),
            nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Dropout(_DROPOUT),
            nn.Linear(_WIDTH, classes),
        )  # fmt: skip
        adam = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=_DECAY)
        best, since, answer = -1, 0, torch.empty(0)
        for _ in range(_EPOCHS):
            network.train()
            for part in torch.randperm(len(x)).split(_BATCH):
                loss = F.cross_entropy(network(x[part]), y[part])
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
            network.eval()
            with torch.no_grad():
                right = int((network(chosen_on).argmax(dim=1) == truth).sum())
                if right > best:
                    best, since = right, 0
                    answer = network(asked).log_softmax(dim=1)
            since += 1
            if since > _PATIENCE:
                break
    return answer.double().numpy()


def _binned(samples: NDArray[np.floating], edges: NDArray[np.float64]) -> Tensor:
    """How far each number has come through each bin: [n, d] to float32[n, F], from 0 to 1."""
    low, width = edges[:-1], np.maximum(np.diff(edges, axis=0), 1e-9)
    through = np.clip((samples[:, None, :] - low) / width, 0, 1)
    return torch.from_numpy(through.reshape(len(samples), -1).astype(np.float32))
