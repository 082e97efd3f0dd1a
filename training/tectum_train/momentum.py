"""A slow copy of what learns: a moving average of its parameters, never reached by gradients."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

__all__ = ["Slow", "momentum_at"]

_Quick = TypeVar("_Quick", bound=nn.Module)


class Slow(nn.Module, Generic[_Quick]):
    """A module's moving average over steps.

    Its parameters are averaged, its buffers taken as they are. What is averaged is not among this
    module's own parts, so a checkpoint holds the copy alone.
    """

    copy: _Quick

    def __init__(self, quick: _Quick) -> None:
        super().__init__()
        self.copy = copy.deepcopy(quick).requires_grad_(False)

    def follow(self, quick: _Quick, momentum: float) -> None:
        """Copy ← momentum · copy + (1 − momentum) · quick."""
        with torch.no_grad():
            for slow, fast in zip(self.copy.parameters(), quick.parameters(), strict=True):
                slow.lerp_(fast, 1 - momentum)
            for kept, taken in zip(self.copy.buffers(), quick.buffers(), strict=True):
                kept.copy_(taken)


def momentum_at(step: int, steps: int, first: float) -> float:
    """From `first` at step 0 along a cosine to 1 at the last step.

    Source: BYOL (arXiv:2006.07733), section 3.2, as MoCo v3 and DINO use it.
    """
    return 1 - (1 - first) * (math.cos(math.pi * min(step / max(steps, 1), 1.0)) + 1) / 2
