"""Which parts of a model a run did not train."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.optim import AdamW

from tectum_core.bundle import Part
from tectum_core.bundle.config import PARTS
from tectum_core.model import PerceptionModel
from tectum_train.objectives import Batch, Objective, Outcome

__all__ = ["unreached", "untrained"]


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


def unreached(model: PerceptionModel, objective: Objective, batch: Batch) -> tuple[Part, ...]:
    """Parts that one objective alone does not train: no gradient of its loss on a batch gets there.

    Args:
        model: as the objective sees it, with its own trunk.
        objective: one of several that share parts and have a trunk each.
        batch: any; what the objective remembers of batches changes.
    """
    objective.zero_grad(set_to_none=True)
    outcome: Outcome = objective(batch.part(0, len(batch)))  # without what others computed of it
    outcome.loss.backward()
    found = tuple(part for part, own in _parts(model) if all(one.grad is None for one in own))
    objective.zero_grad(set_to_none=True)
    return found


def _parts(model: PerceptionModel) -> Iterator[tuple[Part, list[nn.Parameter]]]:
    """Those that have parameters."""
    modules = dict(model.named_modules())
    for part in PARTS:
        if part in modules and (own := list(modules[part].parameters())):
            yield part, own
