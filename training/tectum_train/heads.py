"""Projections that objectives put on the trunk's vectors, and that no bundle keeps.

Letters: D width of the trunk, H of hidden layers, w of the bottleneck, K prototypes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_train.distributed import all_sum, sum_over_ranks
from tectum_train.losses.precision import wide

__all__ = ["PrototypeHead", "batch_norm", "perceptron"]


def perceptron(width: int, hidden: int, out: int, layers: int = 2) -> nn.Sequential:
    """Linear maps with LayerNorm and GELU between: float[…, width] to float[…, out].

    LayerNorm where the papers have BatchNorm: it is the same on every rank, and a momentum encoder
    cannot cheat through a batch's statistics (MoCo's reason to shuffle them).
    """
    widths = [width, *[hidden] * (layers - 1)]
    steps: list[nn.Module] = []
    for before, after in pairwise(widths):
        steps += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU()]
    return nn.Sequential(*steps, nn.Linear(widths[-1], out))


def batch_norm(x: Tensor) -> Tensor:
    """BatchNorm without gains over the rows of all ranks: a mean of 0, a variance of 1.

    Args:
        x: float[b, D], this rank's; ranks may have different numbers of them.

    Returns:
        float32[b, D], or float64.

    Raises:
        ValueError: there is one row alone, which has no variance.

    Source: BatchNorm (arXiv:1502.03167), ε 1e-5 as there; over all ranks, as in MoCo v3's heads.
    """
    own = wide(x)
    rows = int(all_sum(torch.tensor(float(len(own)), device=own.device)))
    if rows < 2:
        raise ValueError(f"batch_norm: found {rows} of all ranks' rows; allowed: 2 or more")
    centred = own - sum_over_ranks(own.sum(dim=0)) / rows
    variance = sum_over_ranks((centred * centred).sum(dim=0)) / rows
    return centred / (variance + 1e-5).sqrt()


class PrototypeHead(nn.Module):
    """A vector's cosines to learnt prototypes, after a perceptron and a bottleneck.

    Source: DINO (arXiv:2104.14294), appendix C: three layers without norms, a unit vector, and a
    weight-normalised linear map, drawn as torch draws one, whose gains stay at 1.

    Args:
        width: D.
        hidden: H.
        bottleneck: w.
        prototypes: K.
        normed: whether vectors go through `batch_norm` before they are made unit ones.
    """

    def __init__(
        self, width: int, hidden: int, bottleneck: int, prototypes: int, *, normed: bool = False
    ) -> None:
        super().__init__()
        self.normed = normed
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(),
            nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )  # fmt: skip
        # As short as a linear layer's rows, which are its directions: what an optimiser's step of a
        # given size turns is one over a direction's length.
        self.directions = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.uniform_(self.directions, -(bottleneck**-0.5), bottleneck**-0.5)
        for layer in self.perceptron:
            if isinstance(layer, nn.Linear):
                # The paper's 0.02 is this at its width of 2,048; narrower ones would fade.
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """Compare.

        Args:
            x: float[b, D].
            frozen: whether the prototypes stay where they are in this step.

        Returns:
            float32[b, K], or float64, from -1 to 1.
        """
        directions = self.directions.detach() if frozen else self.directions
        narrow = self.perceptron(x)
        # Divided by a temperature of 0.04, what bfloat16 rounds off would be a tenth of a logit.
        with torch.autocast(x.device.type, enabled=False):
            narrow = narrow.to(directions.dtype)
            unit = F.normalize(batch_norm(narrow) if self.normed else narrow, dim=-1)
            return unit @ F.normalize(directions, dim=-1).t()
