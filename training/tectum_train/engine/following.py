"""Numbers that follow the picture: places in it, and what a mirror negates or exchanges.

Told once, for batches and for the scales of what they show.

Letters: B samples, n numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_train.augment import FlipConfig, Frames, Placement
from tectum_train.data.samples import Samples
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
    places: tuple[tuple[int, int], ...] = ()
    """x and y of each place in the picture."""
    middle: _Numbers = field(default_factory=lambda: np.zeros(2))
    """[2], where the middle of the frames is, in the unit of places."""
    pixel: _Numbers = field(default_factory=lambda: np.ones(2))
    """[2], how large one of their pixels is."""

    @classmethod
    def told(cls, recipe: Recipe, samples: Samples, what: Literal["actions", "states"]) -> Self:
        """What a recipe says of its actions or states, on pictures of these samples."""
        flip, places = recipe.augmentation.flip or FlipConfig(), recipe.data.places
        mirrored = cls(flip.negated(what), flip.exchanged(what))
        if places is None or not places.of(what):
            return mirrored
        middle, pixel = samples.plane(places.width, places.height)
        return replace(mirrored, places=places.of(what), middle=middle, pixel=pixel)

    def moved(self, values: Tensor, placement: Placement) -> Tensor:
        """Numbers as they are where the pixels went.

        Args:
            values: float[B, …, n].
            placement: of the B samples, or one for all.
        """
        if not (self.negated or self.exchanged or self.places):
            return values
        moved, sign = values.clone(), values.new_ones(values.shape[-1])
        middle, pixel = torch.from_numpy(self.middle), torch.from_numpy(self.pixel)
        for x, y in self.places:
            moved[..., [x, y]] = placement.places(values[..., [x, y]], middle, pixel)
        sign[list(self.negated)] = -1
        turned = (sign * moved)[..., self._order(len(sign))]
        return torch.where(placement.flipped.view(-1, *(1,) * (values.dim() - 1)), turned, moved)

    def moments(
        self, frames: Frames, mean: _Numbers, variance: _Numbers
    ) -> tuple[_Numbers, _Numbers]:
        """What mean and variance of the numbers, float64[n] each, become in training."""
        if which := [number for place in self.places for number in place]:
            mean, variance = mean.copy(), variance.copy()
            middle, pixel = (np.tile(one, len(self.places)) for one in (self.middle, self.pixel))
            mean[which], variance[which] = frames.moved_moments(
                mean[which], variance[which], middle, pixel
            )
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
