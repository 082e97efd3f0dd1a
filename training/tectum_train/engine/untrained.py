"""Which parts of a model a run did not train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import torch
from pydantic import BaseModel
from torch import nn
from torch.optim import AdamW

from tectum_core.bundle import Part
from tectum_core.bundle.config import PARTS
from tectum_core.model import PerceptionModel
from tectum_train.objectives import Batch, Objective, Outcome

__all__ = ["unreached", "untrained"]

_FEW = 16
"""Samples of a batch that is asked only what it reaches."""
_SHOWN_IN = ("image_share", "text_share", "state_share")
"""Settings that say in which share of steps something is shown at all."""


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
        batches: several, since what a step hides may be drawn for it. What a step shows (a picture,
            words) may be, too, however seldom: the last one is asked again with all of it.
    """
    # Not all that an objective keeps from step to step is in its state_dict.
    model, objective = deepcopy((model, objective))
    objective.zero_grad(set_to_none=True)

    def ask(batch: Batch) -> None:
        outcome: Outcome = objective(batch.part(0, min(_FEW, len(batch))))
        outcome.loss.backward()

    last: Batch | None = None
    with torch.random.fork_rng(devices=[]):
        for last in batches:
            ask(last)
        if last is not None:
            _show_all(objective)
            ask(last)
    return tuple(part for part, own in _parts(model) if all(one.grad is None for one in own))


def _show_all(objective: Objective) -> None:
    """Show in every step from now on what it ever shows."""
    for module in objective.modules():
        for name, settings in tuple(vars(module).items()):
            ever = {share: 1.0 for share in _SHOWN_IN if getattr(settings, share, 0.0)}
            if isinstance(settings, BaseModel) and ever:
                setattr(module, name, settings.model_copy(update=ever))


def _parts(model: PerceptionModel) -> Iterator[tuple[Part, list[nn.Parameter]]]:
    """Those that have parameters."""
    modules = dict(model.named_modules())
    for part in PARTS:
        if part in modules and (own := list(modules[part].parameters())):
            yield part, own
