"""AdamW with the field's usual exceptions, and the learning-rate curve."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

from tectum_train.recipe import OptimiserConfig, ScheduleConfig
from tectum_train.tasks.sharing import Stitched
from tectum_train.tasks.weights import Uncertainty

__all__ = ["learning_rate", "optimiser_for", "set_rate"]


def optimiser_for(module: nn.Module, config: OptimiserConfig) -> AdamW:
    """AdamW over the module's parameters; only the weights of linear maps are decayed.

    What weighs objectives is learnt at a rate of its own: its group says `lr_scale`.
    """
    own = {
        id(one): part.lr_scale
        for part in module.modules()
        if isinstance(part, Uncertainty)
        for one in part.parameters()
    }
    scaled = [one for one in module.parameters() if id(one) in own]
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    maps = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    mixtures = {id(part.units) for part in module.modules() if isinstance(part, Stitched)}
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in module.parameters():
        if not parameter.requires_grad or id(parameter) in own:
            continue
        # Learnt tokens and positions lead with a dimension of one, as maps to one number do.
        token = parameter.shape[:1] == (1,) and id(parameter) not in maps
        plain = parameter.dim() < 2 or token or id(parameter) in embeddings | mixtures
        (free if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
        *({"params": [one], "weight_decay": 0.0, "lr_scale": own[id(one)]} for one in scaled),
    ]
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def set_rate(adam: AdamW, rate: float) -> None:
    """Let the next step be taken at this learning rate; groups with a scale at their multiple."""
    for group in adam.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def learning_rate(step: int, peak: float, schedule: ScheduleConfig) -> float:
    """Learning rate of step `step`, from 0: linear warm-up, then a cosine to the final share."""
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    length = max(1, schedule.steps - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / length)
    final = schedule.final_share
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
