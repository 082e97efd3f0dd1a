"""Contrastive losses with their gradients, here or on several ranks, and what those should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.training.ranks import Ranks

from tectum_train.distributed import gather, world_size
from tectum_train.losses.contrastive import (
    Older,
    batch_info_nce,
    info_nce,
    nt_xent,
    queue_info_nce,
    sigmoid_pairs,
)

__all__ = ["Arrays", "Floats", "computed", "departure", "groups_of", "slopes", "units"]

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]


def units(rows: int, seed: int, width: int = 5) -> Floats:
    drawn = np.random.default_rng(seed).normal(size=(rows, width))
    found: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found


def groups_of(rows: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, max(2, rows // 2), rows)


def computed(name: str, wide: bool = True, **given_: Any) -> Arrays:
    """A loss, and the gradients of its vectors and scalars, averaged over ranks.

    Vectors of steps before are `older_left` and so on; None is what is not given.
    """
    dtype = torch.float64 if wide else torch.float32
    tensors: dict[str, Any] = {
        key.removesuffix("_shared"): torch.from_numpy(np.array(value))
        for key, value in given_.items()
        if value is not None
    }
    remembered = [tensors.pop(f"older_{one}", None) for one in Older._fields]
    leaves = {
        key: value.to(dtype).requires_grad_()
        for key, value in tensors.items()
        if value.dtype.is_floating_point and key != "temperature"
    }
    tensors |= leaves
    match name:
        case "info_nce":
            hardest = tensors.pop("hardest", None)
            older = None if remembered[0] is None else Older(*remembered)
            loss = info_nce(**tensors, older=older, hardest=hardest and int(hardest)).loss
        case "nt_xent":
            loss, _ = nt_xent(tensors["first"], tensors["second"], float(tensors["temperature"]))
        case "batch":
            loss, _ = batch_info_nce(tensors["queries"], tensors["keys"], 0.2)
        case "queue":
            loss, _ = queue_info_nce(
                tensors["queries"], tensors["keys"].detach(), tensors["queue"].detach(), 0.2
            )
        case _:
            loss = sigmoid_pairs(**tensors, way=name).loss
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


def slopes(formula: Callable[[Floats], float], at: Floats) -> Floats:
    """The gradient of a formula by central differences."""
    found = np.empty_like(at)
    for place in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[place] = 1e-6
        found[place] = (formula(at + step) - formula(at - step)) / 2e-6
    return found
