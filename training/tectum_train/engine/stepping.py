"""One step of the optimiser: forward, backward, the mean over ranks, descent."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.optim import AdamW

from tectum_train.distributed import average_gradients
from tectum_train.engine.accumulation import backward
from tectum_train.engine.optimiser import set_rate
from tectum_train.objectives import Batch, Outcome, WeightedSum
from tectum_train.recipe import Recipe
from tectum_train.tasks import ManyTasks

__all__ = ["take_step"]


def take_step(
    step: int,
    batch: Batch,
    objective: WeightedSum | ManyTasks,
    adam: AdamW,
    rate: float,
    recipe: Recipe,
    pieces: int,
) -> tuple[Outcome, float]:
    """Learn from a batch; gives what was said of this rank's samples, and the gradient's norm.

    That is the whole gradient's, before it is clipped, also where trunks are clipped apart.

    Args:
        step: its number, from 0.
        batch: this rank's samples.
        objective: what is learnt.
        adam: descends its parameters.
        rate: learning rate.
        recipe: says in which precision, and how long a gradient may be.
        pieces: how many the batch comes in.

    Raises:
        FloatingPointError: the gradient is not finite; nothing was descended.
    """
    set_rate(adam, rate)
    adam.zero_grad(set_to_none=True)
    low = recipe.precision == "bfloat16"
    autocast = partial(torch.autocast, batch.earlier.device.type, torch.bfloat16, enabled=low)
    # Codes that are drawn anew are a function of the step too.
    torch.manual_seed(batch.noise)
    outcome = backward(objective, batch, pieces, autocast)
    average_gradients(objective.parameters())
    norm = _clip(objective, recipe.optimiser.clip_norm or math.inf)
    if not bool(torch.isfinite(norm)):
        raise FloatingPointError(f"step {step}: the gradient is not finite")
    adam.step()
    if isinstance(objective, ManyTasks):
        objective.draw_together(rate)
    objective.after_step()
    return outcome, float(norm)


def _clip(objective: WeightedSum | ManyTasks, longest: float) -> Tensor:
    """Shorten gradients to a norm, each of what is clipped apart; gives that of all, before."""
    whole = [[*objective.parameters()]]
    groups = objective.clipped_apart() if isinstance(objective, ManyTasks) else whole
    norms = [torch.nn.utils.clip_grad_norm_(group, longest) for group in groups if group]
    return torch.stack([norm.to(norms[0]) for norm in norms]).norm()
