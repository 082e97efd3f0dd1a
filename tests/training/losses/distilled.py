"""Distillation losses as formulas in float64 NumPy, and as computed, on one rank or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax
from tests.training.ranks import Ranks
from torch import Tensor

from tectum_train.distributed import world_size
from tectum_train.losses.distillation import (
    dino_cross_entropy,
    ibot_cross_entropy,
    koleo,
)

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

SEEDS = st.integers(0, 2**32)
SMALL = st.integers(1, 5)
PROTOTYPES = st.integers(2, 7)


def drawn(*shape: int, seed: int, scale: float = 1.0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape) * scale


def shares(*shape: int, seed: int) -> Floats:
    found: Floats = softmax(drawn(*shape, seed=seed, scale=3), axis=-1)
    return found


def some_hidden(pictures: int, patches: int, seed: int) -> NDArray[np.bool_]:
    """Unequally many in each picture; none in some, though not in the first."""
    hidden: NDArray[np.bool_] = np.random.default_rng(seed).random((pictures, patches)) < 0.4
    hidden[0, 0] = True
    return hidden


# ---------------------------------------------------------------- the formulas, in NumPy


def formula_dino(student: Floats, teacher: Floats, temperature: float) -> float:
    logarithms = log_softmax(student / temperature, axis=-1)
    terms = [
        -(teacher[other] * logarithms[view]).sum(axis=-1).mean()
        for view in range(len(student))
        for other in range(len(teacher))
        if view != other
    ]
    return float(np.mean(terms))


def formula_ibot(
    student: Floats, teacher: Floats, hidden: NDArray[np.bool_], temperature: float
) -> float:
    """Of logits and shares of all patches, [b, N, K]."""
    terms = -(teacher * log_softmax(student / temperature, axis=-1)).sum(axis=-1)
    return float(np.mean([terms[row, mask].mean() for row, mask in enumerate(hidden) if any(mask)]))


def formula_sinkhorn(logits: Floats, temperature: float, iterations: int) -> Floats:
    """As the papers write it: exponentials, prototypes along the rows."""
    shared = np.exp(logits / temperature).T
    prototypes, samples = shared.shape
    shared /= shared.sum()
    for _ in range(iterations):
        shared /= shared.sum(axis=1, keepdims=True) * prototypes
        shared /= shared.sum(axis=0, keepdims=True) * samples
    return np.asarray((shared * samples).T, np.float64)


def formula_koleo(features: Floats) -> float:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = cdist(unit, unit)
    np.fill_diagonal(distance, np.inf)
    return float(-np.log(np.hypot(distance.min(axis=1), 1e-4)).mean())


# ---------------------------------------------------------------- what is computed


def computed(name: str, student: NDArray[Any], dtype: str = "float64", **given_: Any) -> Arrays:
    """A loss and the student's gradient, as it is once averaged over ranks.

    Samples lead, so that ranks can share them out: [b, V, K] for views, [b, N, K] for patches.
    """
    leaf = torch.from_numpy(student).to(getattr(torch, dtype)).requires_grad_()
    loss = _loss(name, leaf, **{key: torch.from_numpy(v) for key, v in given_.items()})
    loss.backward()
    assert leaf.grad is not None
    return {"loss": loss.detach().numpy(), "gradient": leaf.grad.double().numpy() / world_size()}


def _loss(
    name: str, student: Tensor, teacher: Tensor | None = None, hidden: Tensor | None = None
) -> Tensor:
    if name == "koleo" or teacher is None:
        return koleo(student)
    if hidden is None:
        return dino_cross_entropy(student.transpose(0, 1), teacher.transpose(0, 1), 0.1)
    return ibot_cross_entropy(student[hidden], teacher[hidden], hidden, 0.1)


def slope(formula: Callable[[Floats], float], at: Floats) -> Floats:
    """The formula's gradient, by differences."""
    found = approx_fprime(at.reshape(-1), lambda flat: formula(flat.reshape(at.shape)), 1e-7)
    return np.asarray(found, np.float64).reshape(at.shape)


def departure(ranks: Ranks, name: str, **given_: Any) -> float:
    """How far two ranks' loss and gradient are from one rank's, relative to the largest."""
    alone = computed(name, **given_)
    both = ranks.run(computed, name=name, **given_)
    found: dict[str, Any] = {
        "loss": np.mean([one["loss"] for one in both]),
        "gradient": np.concatenate([one["gradient"] for one in both]),
    }
    return max(
        float(np.abs(found[key] - alone[key]).max() / np.abs(alone[key]).max()) for key in alone
    )
