"""Numbers that follow the picture: what a mirror negates or exchanges.

Told once, for batches and for the scales of what they show.

Letters: B samples, n numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_train.augment import FlipConfig, Frames, Placement
from tectum_train.recipe import Recipe

__all__ = ["Following"]

_Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Following:
    """How the numbers of one feature follow their pictures; unless it is told, they do not."""

    negated: tuple[int, ...] = ()
    """Those that change their sign in a mirror."""
    exchanged: Mapping[int, int] = field(default_factory=dict)
    """Those that a mirror exchanges, each pair once."""

    @classmethod
    def told(cls, recipe: Recipe, what: Literal["actions", "states"]) -> Self:
        """What a recipe says of its actions or states."""
        flip = recipe.augmentation.flip or FlipConfig()
        return cls(flip.negated(what), flip.exchanged(what))

    def moved(self, values: Tensor, placement: Placement) -> Tensor:
        """Numbers as they are where the pixels went.

        Args:
            values: float[B, …, n].
            placement: of the B samples, or one for all.
        """
        if not (self.negated or self.exchanged):
            return values
        sign = values.new_ones(values.shape[-1])
        sign[list(self.negated)] = -1
        turned = (sign * values)[..., self._order(len(sign))]
        return torch.where(placement.flipped.view(-1, *(1,) * (values.dim() - 1)), turned, values)

    def moments(
        self, frames: Frames, mean: _Numbers, variance: _Numbers
    ) -> tuple[_Numbers, _Numbers]:
        """What mean and variance of the numbers, float64[n] each, become in training."""
        turned = self.moved(torch.from_numpy(mean)[None], frames.mirror)[0].numpy()
        return frames.mirrored_moments(
            (mean, variance), (turned, variance[self._order(len(variance))])
        )

    def _order(self, count: int) -> list[int]:
        """Which of so many numbers a mirror shows in place of each."""
        order = list(range(count))
        for one, other in self.exchanged.items():
            order[one], order[other] = other, one
        return order
