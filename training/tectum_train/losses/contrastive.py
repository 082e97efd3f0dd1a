"""Losses that tell pairs that belong together from pairs that do not.

Letters: b samples of this rank, n of all ranks, D width of a vector, K of a queue.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tectum_train.distributed import gather, mean_over_ranks, rank, ring
from tectum_train.losses.precision import wide, without_autocast

__all__ = [
    "Contrasted",
    "Older",
    "batch_info_nce",
    "info_nce",
    "multi_positive_cross_entropy",
    "nt_xent",
    "queue_info_nce",
    "sigmoid_pairs",
]


@without_autocast
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
    logits = wide(logits)
    if allowed is not None:
        logits = logits.masked_fill(~(allowed | positive), -torch.inf)
    logarithms = logits.log_softmax(dim=1)
    # A column that is no candidate has -inf, which times zero would be no number.
    chosen = torch.where(positive, logarithms, torch.zeros_like(logarithms))
    return -chosen.sum(dim=1) / positive.sum(dim=1)


class Older(NamedTuple):
    """Vectors of steps before, which are negatives beside those of the batch."""

    left: Tensor
    """float[K, D], unit vectors without gradient."""
    right: Tensor
    """float[K, D], likewise."""
    group: Tensor
    """int64[K]; where it is a row's own, the vector is no negative, and an old positive neither."""
    counted: Tensor
    """bool[K], False in places that nothing has come to yet."""


class Contrasted(NamedTuple):
    """What is said of this rank's rows."""

    loss: Tensor
    """float32 scalar, or float64: a share; averaged over ranks it is the loss."""
    hit: Tensor
    """bool[b], whether each left vector's nearest right one is of its group."""
    chance: Tensor | None
    """Likewise a share: the loss of equal vectors, which is the mean logarithm of how many
    candidates a row has. None: of the sigmoid, which depends on its bias."""


@without_autocast
def info_nce(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    group: Tensor,
    counted: Tensor | None = None,
    older: Older | None = None,
    hardest: int | None = None,
) -> Contrasted:
    """CLIP's loss between two kinds of unit vectors, both ways, over all ranks.

    Args:
        left, right: float[b, D], unit vectors; row i of one belongs to row i of the other.
        scale: scalar, one over the temperature.
        group: int64[b]; rows of one group are all positives of each other, and never negatives.
        counted: bool[b], which samples take part; None: all.
        older: more negatives; None: those of the batch alone.
        hardest: of each row's negatives only so many count, those nearest to it; None: all.

    Returns:
        The loss, and what it stands beside. Chance, for distinct groups: ln n, ln(n + K),
        ln(1 + hardest).

    Source: CLIP (arXiv:2103.00020); older vectors as negatives: cross-batch memory
    (arXiv:1912.06798).
    """
    left, right = wide(left), wide(right)
    counted = torch.ones_like(group, dtype=torch.bool) if counted is None else counted
    lefts, rights, groups, columns = map(gather, (left, right, group, counted))
    positive = (group[:, None] == groups[None, :]) & columns[None, :]
    # A row that does not count needs some target that is a number.
    positive = positive | (~counted[:, None] & _own_columns(left, len(groups)))
    allowed = columns[None, :].expand(len(left), -1)
    if older is not None:
        lefts, rights = (
            torch.cat([lefts, wide(older.left)]),
            torch.cat([rights, wide(older.right)]),
        )
        apart = (group[:, None] != older.group[None, :]) & older.counted[None, :]
        positive = torch.cat([positive, torch.zeros_like(apart)], dim=1)
        allowed = torch.cat([allowed, apart], dim=1)
    forth = left @ rights.t() * wide(scale)
    back = right @ lefts.t() * wide(scale)
    there, here = (_hard(logits, positive, allowed, hardest) for logits in (forth, back))
    both = (
        multi_positive_cross_entropy(forth, positive, there)
        + multi_positive_cross_entropy(back, positive, here)
    ) / 2
    # The same number both ways: of the nearest there are as many.
    candidates = (there | positive).sum(dim=1).to(both.dtype)
    nearest = forth.masked_fill(~(allowed | positive), -torch.inf).argmax(dim=1, keepdim=True)
    return Contrasted(
        mean_over_ranks(both, counted),
        positive.gather(1, nearest)[:, 0],
        mean_over_ranks(candidates.log(), counted),
    )


def _hard(logits: Tensor, positive: Tensor, allowed: Tensor, hardest: int | None) -> Tensor:
    """bool[b, n], the allowed columns without all negatives but the nearest so many."""
    if hardest is None:
        return allowed
    negative = allowed & ~positive
    scores = logits.detach().masked_fill(~negative, -torch.inf)
    nearest = scores.topk(min(hardest, scores.shape[1]), dim=1).indices
    return negative & torch.zeros_like(negative).scatter(1, nearest, True)


@without_autocast
def sigmoid_pairs(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    bias: Tensor,
    group: Tensor,
    counted: Tensor | None = None,
    way: str = "ring",
) -> Contrasted:
    """SigLIP's loss: every pair is asked by itself whether it belongs together.

    Args:
        left, right: float[b, D], unit vectors.
        scale, bias: scalars of the logit scale · cosine + bias.
        group: int64[b]; all pairs of one group belong together.
        counted: bool[b], which samples take part; None: all.
        way: `ring` holds two ranks' right vectors at a time, `gather` all of them.

    Returns:
        The loss, the sum over all pairs divided by n, and hits.

    Source: SigLIP (arXiv:2303.15343), sum over pairs and mean over images.
    """
    left, right = wide(left), wide(right)
    counted = torch.ones_like(group, dtype=torch.bool) if counted is None else counted
    each = ring if way == "ring" else lambda own: (gather(own),)
    total = left.new_zeros(len(left))
    best, hit = torch.full_like(total, -torch.inf), torch.zeros_like(counted)
    for others, groups, columns in zip(each(right), each(group), each(counted), strict=True):
        logits = left @ others.t() * wide(scale) + wide(bias)
        together = group[:, None] == groups[None, :]
        pairs = F.logsigmoid(torch.where(together, logits, -logits))
        total = total - (pairs * columns).sum(dim=1)
        top, place = logits.detach().masked_fill(~columns, -torch.inf).max(dim=1)
        hit = torch.where(top > best, together.gather(1, place[:, None])[:, 0], hit)
        best = torch.maximum(top, best)
    return Contrasted(mean_over_ranks(total, counted), hit, None)


@without_autocast
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
    views = F.normalize(torch.cat([wide(first), wide(second)]), dim=1)
    # In the order of pictures, so that a rank's own rows lie in one piece.
    views = views.view(2, len(first), -1).transpose(0, 1).flatten(0, 1)
    every = gather(views)
    logits = views @ every.t() / temperature
    own = rank() * len(views) + torch.arange(len(views), device=views.device)
    logits = logits.scatter(1, own[:, None], -torch.inf)
    partner = own ^ 1
    loss = F.cross_entropy(logits, partner, reduction="none")
    return mean_over_ranks(loss), logits.argmax(dim=1) == partner


@without_autocast
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
        This rank's share of the loss, and bool[b], whether the own key is nearer than any other (a
        tie is no hit: it would be one always where all keys have become one); ln(1 + K) at first.

    Source: MoCo (arXiv:1911.05722).
    """
    queries, keys, queue = wide(queries), wide(keys), wide(queue)
    positive = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.t()], dim=1) / temperature
    loss = F.cross_entropy(
        logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="none"
    )
    return mean_over_ranks(loss), (logits[:, :1] > logits[:, 1:]).all(dim=1)


@without_autocast
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
    logits = wide(queries) @ gather(wide(keys)).t() / temperature
    own = rank() * len(queries) + torch.arange(len(queries), device=queries.device)
    loss = F.cross_entropy(logits, own, reduction="none") * 2 * temperature
    return mean_over_ranks(loss), logits.argmax(dim=1) == own


def _own_columns(rows: Tensor, columns: int) -> Tensor:
    """bool[b, n], True where the column is the row itself."""
    own = rank() * len(rows) + torch.arange(len(rows), device=rows.device)
    return own[:, None] == torch.arange(columns, device=rows.device)[None, :]
