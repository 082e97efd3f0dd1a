"""Bins of the numbers in an action, for a model that says how probable each is.

Letters: A numbers in an action, K bins of each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        with torch.device("cpu"):  # an outline has these few numbers too
            edges = torch.linspace(-limit, limit, count + 1).expand(dimensions, -1)
            self.register_buffer("edges", edges[:, 1:-1].clone())
            self.register_buffer("centres", (edges[:, 1:] + edges[:, :-1]) / 2)

    @torch.no_grad()
    def fit(self, actions: Tensor) -> None:
        """Put equally many of float[n, A], standardised, into each bin; its centre is their median.

        Numbers that are alike stay together, so that bins may hold more or fewer, or none: such a
        bin stands for what would be there if numbers lay evenly between those that there are.
        """
        columns = actions.float().t().sort(dim=1).values.contiguous()
        size, count = len(actions), self.config.count
        cuts = _cuts(columns, torch.arange(1, count, device=actions.device) / count)
        self.edges.copy_(_halfway(columns, cuts - 1, cuts))
        begins, ends = F.pad(cuts, (1, 0)), F.pad(cuts, (0, 1), value=size)
        medians = _halfway(columns, (begins + ends - 1) // 2, (begins + ends) // 2)
        evenly = torch.arange(count, device=actions.device) + 0.5
        between = _quantiles(columns.double().t(), evenly / count).float()
        between[:, 1:] = torch.maximum(between[:, 1:], self.edges)
        between[:, :-1] = torch.minimum(between[:, :-1], self.edges)
        self.centres.copy_(torch.where(begins < ends, medians, between))

    def places(self, actions: Tensor) -> Tensor:
        """Which bin each number lies in: float[…, A] to int64[…, A]; the outermost are open."""
        columns = actions.float().movedim(-1, 0).flatten(1).contiguous()
        places = torch.searchsorted(self.edges, columns)
        return places.view(actions.shape[-1], *actions.shape[:-1]).movedim(0, -1)

    def expected(self, logits: Tensor) -> Tensor:
        """The mean of the centres, as probable as the logits say: float[…, A, K] to float[…, A]."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (wide.softmax(dim=-1) * self.centres).sum(dim=-1)


def _cuts(columns: Tensor, shares: Tensor) -> Tensor:
    """How many numbers lie below each edge: int64[A, k], at least 1.

    Args:
        columns: float32[A, n], each ascending.
        shares: float[k], of the numbers that lie below if none are alike. A cut through some that
            are is moved to the nearer of their ends, and never to where it would cut nothing off.
    """
    size = columns.shape[1]
    wanted = (shares * size).expand(len(columns), -1)
    alike = columns.gather(1, wanted.long().clamp(max=size - 1))
    begins = torch.searchsorted(columns, alike)
    ends = torch.searchsorted(columns, alike, right=True)
    return torch.where((begins > 0) & (wanted - begins < ends - wanted), begins, ends)


def _halfway(columns: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Between the numbers of float32[A, n] at int64[A, k] each, or the last: float32[A, k]."""
    both = [columns.gather(1, at.clamp(0, columns.shape[1] - 1)).double() for at in (one, other)]
    return torch.stack(both).mean(dim=0).float()


def _quantiles(ordered: Tensor, shares: Tensor) -> Tensor:
    """Of float[n, A], each column ascending, at float[k]: float[A, k], linear between values."""
    at = shares.to(ordered.dtype) * (len(ordered) - 1)
    below = at.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], (at - below)[:, None]).t()
