"""What parameters begin as, where a layer of torch's does not say it."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["begin_at_zero", "small_normal"]


def small_normal(*shape: int, std: float = 0.02) -> nn.Parameter:
    """A parameter of a shape, normal about zero: how learned tokens and positions begin."""
    # By `nn.init`, so that an outline can leave it out.
    return nn.Parameter(nn.init.normal_(torch.empty(*shape), std=std))


def begin_at_zero(paint: nn.Linear | nn.Conv2d) -> None:
    """Let forward dynamics begin by predicting no change, which is nearly right everywhere."""
    nn.init.zeros_(paint.weight)
    if paint.bias is not None:
        nn.init.zeros_(paint.bias)
