"""Bins of the numbers in an action, for a model that says how probable each is.

Letters: A numbers in an action, K bins of each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tectum_core.architecture import ActionBinsConfig

__all__ = ["ActionBins"]


class ActionBins(nn.Module):
    """Where bins end and what each stands for; with the weights, so that a bundle has them."""

    edges: Tensor
    """float32[A, K − 1], between one bin and the next, ascending."""
    centres: Tensor
    """float32[A, K]."""

    def __init__(self, config: ActionBinsConfig, dimensions: int) -> None:
        super().__init__()
        self.config = config
        limit, count = config.limit, config.count
        edges = torch.linspace(-limit, limit, count + 1).expand(dimensions, -1)
        self.register_buffer("edges", edges[:, 1:-1].clone())
        self.register_buffer("centres", (edges[:, 1:] + edges[:, :-1]) / 2)

    @torch.no_grad()
    def fit(self, actions: Tensor) -> None:
        """Put equally many of float[n, A], standardised, into each bin; its centre is their median.

        Where a number has few different values, some bins have no room and stay empty.
        """
        ordered = actions.double().sort(dim=0).values
        count = self.config.count
        inner = torch.arange(1, count, device=actions.device)
        middle = torch.arange(count, device=actions.device) + 0.5
        self.edges.copy_(_quantiles(ordered, inner / count))
        self.centres.copy_(_quantiles(ordered, middle / count))

    def places(self, actions: Tensor) -> Tensor:
        """Which bin each number lies in: float[…, A] to int64[…, A]; the outermost are open."""
        columns = actions.float().movedim(-1, 0).flatten(1).contiguous()
        places = torch.searchsorted(self.edges, columns)
        return places.view(actions.shape[-1], *actions.shape[:-1]).movedim(0, -1)

    def expected(self, logits: Tensor) -> Tensor:
        """The mean of the centres, as probable as the logits say: float[…, A, K] to float[…, A]."""
        return (logits.float().softmax(dim=-1) * self.centres).sum(dim=-1)


def _quantiles(ordered: Tensor, shares: Tensor) -> Tensor:
    """Of float[n, A], each column ascending, at float[k]: float[A, k], linear between values."""
    at = shares.to(ordered.dtype) * (len(ordered) - 1)
    below = at.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], (at - below)[:, None]).t()
