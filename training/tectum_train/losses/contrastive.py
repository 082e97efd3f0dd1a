"""Losses that tell pairs that belong together from pairs that do not.

Letters: b samples of this rank, n of all ranks, D width of a vector, K of a queue.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tectum_train.distributed import gather, mean_over_ranks, rank, ring

__all__ = [
    "batch_info_nce",
    "info_nce",
    "multi_positive_cross_entropy",
    "nt_xent",
    "queue_info_nce",
    "sigmoid_pairs",
]


def multi_positive_cross_entropy(
    logits: Tensor, positive: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """For each row, the cross-entropy against all its positives in equal shares.

    Args:
        logits: float[b, n].
        positive: bool[b, n], at least one in each row.
        allowed: bool[b, n], which columns are candidates at all; None: all.

    Returns:
        float32[b], or float64; ln n for equal logits of n candidates and one positive each.

    Source: several positives: SupCon (arXiv:2004.11362), L_out.
    """
    logits = _wide(logits)
    if allowed is not None:
        logits = logits.masked_fill(~(allowed | positive), -torch.inf)
    logarithms = logits.log_softmax(dim=1)
    # A column that is no candidate has -inf, which times zero would be no number.
    chosen = torch.where(positive, logarithms, torch.zeros_like(logarithms))
    return -chosen.sum(dim=1) / positive.sum(dim=1)


def info_nce(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    group: Tensor,
    counted: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """CLIP's loss between two kinds of unit vectors, both ways, over all ranks.

    Args:
        left, right: float[b, D], unit vectors; row i of one belongs to row i of the other.
        scale: scalar, one over the temperature.
        group: int64[b]; rows of one group are all positives of each other.
        counted: bool[b], which samples take part; None: all.
        bias: scalar added to every logit; None: none.

    Returns:
        This rank's share of the loss (averaged over ranks it is the loss), and bool[b], whether
        each left vector's nearest right one is of its group; ln n at first for distinct groups.

    Source: CLIP (arXiv:2103.00020).
    """
    left, right = _wide(left), _wide(right)
    counted = torch.ones_like(group, dtype=torch.bool) if counted is None else counted
    every_left, every_right, groups, columns = map(gather, (left, right, group, counted))
    positive = (group[:, None] == groups[None, :]) & columns[None, :]
    # A row that does not count needs some target that is a number.
    positive = positive | (~counted[:, None] & _own_columns(left, len(groups)))
    offset = 0.0 if bias is None else _wide(bias)
    allowed = columns[None, :].expand(len(left), -1)
    forth = left @ every_right.t() * _wide(scale) + offset
    back = right @ every_left.t() * _wide(scale) + offset
    both = (
        multi_positive_cross_entropy(forth, positive, allowed)
        + multi_positive_cross_entropy(back, positive, allowed)
    ) / 2
    nearest = forth.masked_fill(~allowed, -torch.inf).argmax(dim=1, keepdim=True)
    hit = positive.gather(1, nearest)[:, 0]
    return mean_over_ranks(both, counted), hit


def sigmoid_pairs(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, group: Tensor, way: str = "ring"
) -> Tensor:
    """SigLIP's loss: every pair is asked by itself whether it belongs together.

    Args:
        left, right: float[b, D], unit vectors.
        scale, bias: scalars of the logit scale · cosine + bias.
        group: int64[b]; all pairs of one group belong together.
        way: `ring` holds two ranks' right vectors at a time, `gather` all of them.

    Returns:
        This rank's share; averaged over ranks it is the sum over all pairs, divided by n.

    Source: SigLIP (arXiv:2303.15343), sum over pairs and mean over images.
    """
    left, right = _wide(left), _wide(right)
    total = left.new_zeros(())
    if way == "ring":
        sent = zip(ring(right), ring(group), strict=True)
    else:
        sent = zip((gather(right),), (gather(group),), strict=True)
    for others, groups in sent:
        logits = left @ others.t() * _wide(scale) + _wide(bias)
        sign = torch.where(group[:, None] == groups[None, :], 1.0, -1.0)
        total = total - F.logsigmoid(sign * logits).sum()
    return total / len(left)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """SimCLR's loss: of all other views of all ranks, which is the same picture's?

    Args:
        first, second: float[b, D], two views' vectors of each picture, of any length.
        temperature: what cosines are divided by.

    Returns:
        This rank's share of the loss, and bool[2b], whether the nearest other view is the right
        one; ln(2n − 1) where all views are alike.

    Source: SimCLR (arXiv:2002.05709), NT-Xent.
    """
    views = F.normalize(torch.cat([_wide(first), _wide(second)]), dim=1)
    # In the order of pictures, so that a rank's own rows lie in one piece.
    views = views.view(2, len(first), -1).transpose(0, 1).flatten(0, 1)
    every = gather(views)
    logits = views @ every.t() / temperature
    own = rank() * len(views) + torch.arange(len(views), device=views.device)
    logits = logits.scatter(1, own[:, None], -torch.inf)
    partner = own ^ 1
    loss = F.cross_entropy(logits, partner, reduction="none")
    return mean_over_ranks(loss), logits.argmax(dim=1) == partner


def queue_info_nce(
    queries: Tensor, keys: Tensor, queue: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """MoCo's loss: each query's own key against a queue of older ones.

    Args:
        queries: float[b, D], unit vectors.
        keys: float[b, D], unit vectors, without gradient; row i is query i's positive.
        queue: float[K, D], keys of steps before.
        temperature: what cosines are divided by.

    Returns:
        This rank's share of the loss, and bool[b], whether the own key is nearest; ln(1 + K) at
        first.

    Source: MoCo (arXiv:1911.05722).
    """
    queries, keys, queue = _wide(queries), _wide(keys), _wide(queue)
    positive = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.t()], dim=1) / temperature
    loss = F.cross_entropy(
        logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="none"
    )
    return mean_over_ranks(loss), logits.argmax(dim=1) == 0


def batch_info_nce(queries: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """MoCo v3's loss: each query's own key against all keys of all ranks.

    Args:
        queries: float[b, D], unit vectors.
        keys: float[b, D], unit vectors; row i is query i's positive.
        temperature: what cosines are divided by.

    Returns:
        This rank's share of the loss times twice the temperature, which undoes what that does to
        the gradient's size, and bool[b], whether the own key is nearest.

    Source: MoCo v3 (arXiv:2104.02057), algorithm 1.
    """
    logits = _wide(queries) @ gather(_wide(keys)).t() / temperature
    own = rank() * len(queries) + torch.arange(len(queries), device=queries.device)
    loss = F.cross_entropy(logits, own, reduction="none") * 2 * temperature
    return mean_over_ranks(loss), logits.argmax(dim=1) == own


def _wide(values: Tensor) -> Tensor:
    """float32, or float64 if it is that already."""
    return values if values.dtype == torch.float64 else values.float()


def _own_columns(rows: Tensor, columns: int) -> Tensor:
    """bool[b, n], True where the column is the row itself."""
    own = rank() * len(rows) + torch.arange(len(rows), device=rows.device)
    return own[:, None] == torch.arange(columns, device=rows.device)[None, :]
