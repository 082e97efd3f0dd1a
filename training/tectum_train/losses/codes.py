"""Codes of a codebook: which is nearest, what is lost by taking it, and whether they all live.

Letters: b pictures of this rank, N patches of X numbers, n vectors of this rank, m hidden patches
of this rank, E length of a code's vector, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tectum_train.distributed import all_sum, mean_over_ranks
from tectum_train.losses.precision import wide

__all__ = [
    "code_cross_entropy",
    "code_uses",
    "commitment",
    "majority",
    "nearest",
    "painting_error",
    "perplexity",
    "straight_through",
    "sums_of_codes",
    "usage",
]

_HELD = 2**24
"""Numbers of an n × K table that are held at once."""


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The nearest code of each vector by Euclidean distance; the lower one of two as near.

    Args:
        vectors: float[n, E].
        codebook: float[K, E].

    Returns:
        int64[n].
    """
    vectors, codebook = wide(vectors), wide(codebook)
    length = codebook.square().sum(dim=1)
    # A vector's own length is the same for all codes.
    return torch.cat(
        [(length - 2 * rows @ codebook.t()).argmin(dim=1) for rows in _rows(vectors, len(codebook))]
    )


def straight_through(vectors: Tensor, quantised: Tensor) -> Tensor:
    """The quantised vectors, whose gradient passes to the vectors as if nothing had happened.

    Source: VQ-VAE (arXiv:1711.00937), section 3.2.
    """
    return vectors + (quantised - vectors).detach()


def commitment(vectors: Tensor, quantised: Tensor) -> Tensor:
    """What keeps an encoder near its codes: the mean squared distance to them.

    Args:
        vectors: float[n, E], the encoder's.
        quantised: float[n, E], their codes, which it does not move.

    Returns:
        This rank's share; averaged over ranks it is the mean over all vectors.

    Source: VQ-VAE (arXiv:1711.00937), equation 3's last term, as a mean over E.
    """
    distance = (wide(vectors) - wide(quantised).detach()).square().mean(dim=-1)
    return mean_over_ranks(distance)


def painting_error(painted: Tensor, true: Tensor) -> Tensor:
    """The mean squared error of patches that were painted from their codes.

    Args:
        painted, true: float[b, N, X], in one unit.

    Returns:
        This rank's share; averaged over ranks it is the mean over all pictures.

    Source: VQ-VAE (arXiv:1711.00937), equation 3's first term.
    """
    error = (wide(painted) - wide(true)).square().mean(dim=(1, 2))
    return mean_over_ranks(error)


def code_cross_entropy(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """BEiT's loss: which code has each hidden patch?

    Args:
        logits: float[m, K], of hidden patches alone; ranks may have more of them or fewer.
        codes: int64[m], the tokenizer's.

    Returns:
        This rank's share of the mean over all ranks' hidden patches, and bool[m], whether the
        likeliest code is the right one; ln K for equal logits.

    Source: BEiT (arXiv:2106.08254), equation 2.
    """
    logits = wide(logits)
    surprise = F.cross_entropy(logits, codes, reduction="none")
    return mean_over_ranks(surprise), logits.argmax(dim=1) == codes


@torch.no_grad()
def code_uses(codes: Tensor, size: int, counted: Tensor | None = None) -> Tensor:
    """How often all ranks use each of so many codes.

    Never waits for a GPU, as counting by `bincount` does, which looks for the largest first. Whole
    numbers add up alike in any order.

    Args:
        codes: int64[b, …].
        size: K.
        counted: bool[b], of which of them; None: of all.

    Returns:
        float32[K].
    """
    each = torch.ones_like(codes, dtype=torch.float32)
    if counted is not None:
        each = each * counted.view(-1, *[1] * (codes.dim() - 1))
    return all_sum(each.new_zeros(size).scatter_add_(0, codes.flatten(), each.flatten()))


@torch.no_grad()
def sums_of_codes(vectors: Tensor, codes: Tensor, size: int) -> Tensor:
    """The sum of all ranks' vectors that have each code.

    As products with a table of zeros and ones: adding rows up by index would on a GPU take them in
    no fixed order.

    Args:
        vectors: float[n, E].
        codes: int64[n].
        size: K.

    Returns:
        float[K, E].
    """
    vectors = wide(vectors)
    total = vectors.new_zeros(size, vectors.shape[1])
    for rows, theirs in zip(_rows(vectors, size), _rows(codes, size), strict=True):
        total += F.one_hot(theirs, size).to(rows.dtype).t() @ rows
    return all_sum(total)


def usage(uses: Tensor) -> Tensor:
    """Share of the codes that are used at all: float[K] to a scalar."""
    return (uses > 0).float().mean()


def perplexity(uses: Tensor) -> Tensor:
    """How many codes, used alike, would be as hard to foretell: float[K] to a scalar, 1 to K."""
    share = uses / uses.sum().clamp(min=1)
    return torch.special.entr(share).sum().exp()


def majority(uses: Tensor) -> Tensor:
    """Accuracy of always saying the commonest code: float[K] to a scalar."""
    return uses.max() / uses.sum().clamp(min=1)


def _rows(values: Tensor, columns: int) -> tuple[Tensor, ...]:
    """Parts of [n, …] such that a table of one and so many columns is not too large."""
    return values.split(max(1, _HELD // columns))
