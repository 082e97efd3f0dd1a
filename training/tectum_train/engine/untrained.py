"""Which parts of a model a run did not train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import torch
from torch import nn
from torch.optim import AdamW

from tectum_core.bundle import Part
from tectum_core.bundle.config import PARTS
from tectum_core.model import PerceptionModel
from tectum_train.objectives import Batch, Objective, Outcome

__all__ = ["unreached", "untrained"]

_FEW = 16
"""Samples of a batch that is asked only what it reaches."""


def untrained(model: PerceptionModel, adam: AdamW) -> tuple[Part, ...]:
    """Parts that no gradient ever reached: the optimiser has no moments of theirs, or zeros.

    Asked of the run, not of the recipe: what an objective reads depends on its settings.
    """
    found = list[Part]()
    for part, own in _parts(model):
        moments = (adam.state[one]["exp_avg_sq"] for one in own if one in adam.state)
        if not any(bool(squares.any()) for squares in moments):
            found.append(part)
    return tuple(found)


def unreached(
    model: PerceptionModel, objective: Objective, batches: Iterable[Batch]
) -> tuple[Part, ...]:
    """Parts that one objective alone does not train: no gradient of its losses gets there.

    Args:
        model: as the objective sees it, with its own trunk.
        objective: one of several that share parts and have a trunk each; it is left as it was.
        batches: several, since what a step shows (a picture, words) may be drawn for it.
    """
    # Not all that an objective keeps from step to step is in its state_dict.
    model, objective = deepcopy((model, objective))
    objective.zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=[]):
        for batch in batches:
            outcome: Outcome = objective(batch.part(0, min(_FEW, len(batch))))
            outcome.loss.backward()
    return tuple(part for part, own in _parts(model) if all(one.grad is None for one in own))


def _parts(model: PerceptionModel) -> Iterator[tuple[Part, list[nn.Parameter]]]:
    """Those that have parameters."""
    modules = dict(model.named_modules())
    for part in PARTS:
        if part in modules and (own := list(modules[part].parameters())):
            yield part, own
