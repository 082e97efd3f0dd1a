"""What a loss is measured in, so that one of 4 nats and one of 0.1 can be summed.

Letters: K objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tectum_train.distributed import all_sum, world_size

__all__ = ["FirstLosses", "Units"]

_FIRST = 10
"""Steps whose mean is an objective's first loss: one batch alone may be an easy one."""


class FirstLosses(nn.Module):
    """What each loss was in its first steps, on average.

    Args:
        count: K.
    """

    sums: Tensor
    seen: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(count))
        self.register_buffer("seen", torch.zeros(count))

    def hear(self, losses: Tensor, heard: Tensor) -> None:
        """Take a step into account, if it is one of an objective's first.

        Args:
            losses: float[K], averaged over ranks; one of 0 is of a step in which nothing counted,
                which says nothing of what an objective costs.
            heard: bool[K], which of them say what an objective costs.
        """
        learning = heard & (self.seen < _FIRST) & (losses > 0)
        self.sums += torch.where(learning, losses, 0.0)
        self.seen += learning

    def means(self, otherwise: Tensor) -> Tensor:
        """float[K], above 0; `otherwise`, float[K], where an objective had no step so far."""
        found = self.sums / self.seen.clamp(min=1)
        return torch.where(self.seen > 0, found, otherwise).clamp(min=1e-6)


class Units(nn.Module):
    """One number for each objective: of its first steps, and kept from then on, or each step's own.

    The latter are what knowing nothing costs, as each outcome says it (`chance`).

    Args:
        count: K.
        kind: as `TasksConfig.normalise`.
    """

    def __init__(self, count: int, kind: Literal["none", "initial", "chance"]) -> None:
        super().__init__()
        self.kind = kind
        self.first = FirstLosses(count)

    def of(self, losses: Tensor, heard: Tensor, chance: Sequence[float | None]) -> Tensor:
        """What to divide by in this step.

        Args:
            losses: float[K], detached.
            heard: bool[K], which of them say what an objective costs.
            chance: what knowing nothing costs; None: an objective cannot tell.

        Returns:
            float[K], above 0.
        """
        if self.kind == "none":
            return torch.ones_like(losses)
        self.first.hear(all_sum(losses) / world_size(), heard)
        # An objective without a turn so far divides nothing.
        first = self.first.means(torch.ones_like(losses))
        if self.kind == "initial":
            return first
        told = torch.tensor([float("nan") if one is None else one for one in chance])
        told = told.to(losses)
        return torch.where(told > 0, told, first)
