"""Losses by which a student learns a teacher's shares over prototypes, without a label.

The teacher's logits become shares that neither fall into one prototype nor spread over all alike:
centred and sharpened, or balanced over a batch (Sinkhorn–Knopp).

Letters: b samples of this rank, n of all ranks, V views that the student has, G that the teacher
has, K prototypes, N patches of a picture, M hidden ones of this rank, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tectum_train.distributed import all_sum, gather, mean_over_ranks, rank
from tectum_train.losses.precision import wide, without_autocast

__all__ = [
    "centred",
    "dino_cross_entropy",
    "entropy",
    "ibot_cross_entropy",
    "koleo",
    "moved_centre",
    "sinkhorn_knopp",
]

_NEAREST = 1e-4
"""Distances of unit vectors count as at least this, in KoLeo."""


def centred(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """A teacher's shares, less of what it says of every sample, sharpened.

    Args:
        logits: float[…, K].
        centre: float[K], what it says on average.
        temperature: below the student's.

    Returns:
        float32[…, K] without gradient, or float64; each row sums to 1.

    Source: DINO (arXiv:2104.14294), equation 1 and section 3.1.
    """
    return ((wide(logits) - wide(centre)) / temperature).detach().softmax(dim=-1)


@torch.no_grad()
def moved_centre(centre: Tensor, total: Tensor, count: int, momentum: float) -> Tensor:
    """A centre after a step: the moving average of the mean over all ranks' rows.

    Args:
        centre: float[K].
        total: float[K], the sum of this rank's rows of logits.
        count: how many those are; where no rank has any the centre stays where it is.
        momentum: share of the centre that is kept.

    Returns:
        float[K].

    Source: DINO (arXiv:2104.14294), equation 4.
    """
    every = all_sum(torch.cat([wide(total), wide(total).new_full((1,), count)]))
    mean = (every[:-1] / every[-1].clamp(min=1)).to(centre.dtype)
    return torch.where(every[-1] > 0, centre.lerp(mean, 1 - momentum), centre)


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """A teacher's shares such that all prototypes get equally much of all ranks' samples.

    Alternately, prototypes and samples are scaled to equal sums. In logarithms: their exponentials
    overflow where logits are far apart.

    Args:
        logits: float[b, K]; ranks may have unequally many.
        temperature: what they are divided by.
        iterations: how often both are scaled.

    Returns:
        float32[b, K], or float64; each row sums to 1, each column, over all ranks, nearly to n/K.

    Source: SwAV (arXiv:2006.09882), section 3.1; as DINOv2 (arXiv:2304.07193) has it, less
    factors that the last scaling takes out again.
    """
    scaled = wide(logits) / temperature
    prototypes = scaled.new_zeros(scaled.shape[1])
    samples = scaled.new_zeros(len(scaled), 1)
    for _ in range(iterations):
        own = (scaled + samples).logsumexp(dim=0)
        prototypes = -gather(own[None]).logsumexp(dim=0)
        samples = -(scaled + prototypes).logsumexp(dim=1, keepdim=True)
    return (scaled + prototypes + samples).exp()


def dino_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """What the teacher says of one view, the student shall say of each other one (DINO).

    Args:
        student: float[V, b, K], logits; its first G views are the teacher's.
        teacher: float[G, b, K], shares.
        temperature: what the student's logits are divided by.

    Returns:
        This rank's share of the mean over samples and over pairs of different views; ln K where the
        student's logits are all alike.

    Source: DINO (arXiv:2104.14294), equation 3.
    """
    logarithms = (wide(student) / temperature).log_softmax(dim=-1)
    pairs = [
        -(told * said).sum(dim=-1)
        for view, said in enumerate(logarithms)
        for other, told in enumerate(teacher)
        if view != other
    ]
    return mean_over_ranks(torch.stack(pairs).mean(dim=0))


def ibot_cross_entropy(
    student: Tensor, teacher: Tensor, hidden: Tensor, temperature: float
) -> Tensor:
    """What the teacher says of a patch, the student shall say without seeing it (iBOT).

    Args:
        student: float[M, K], logits of the hidden patches, picture by picture.
        teacher: float[M, K], shares.
        hidden: bool[b, N], where they are; there may be none in a picture.
        temperature: what the student's logits are divided by.

    Returns:
        This rank's share of the mean over pictures with hidden patches of each one's mean; ln K
        where the student's logits are all alike, 0 if nothing is hidden on any rank.

    Source: iBOT (arXiv:2111.07832), equation 2; each picture counts alike as in DINOv2.
    """
    logarithms = (wide(student) / temperature).log_softmax(dim=-1)
    weight = hidden.to(logarithms.dtype) / hidden.sum(dim=1, keepdim=True).clamp(min=1)
    return mean_over_ranks(-(teacher * logarithms).sum(dim=-1), weight[hidden])


@without_autocast
def koleo(features: Tensor) -> Tensor:
    """Minus the logarithm of the distance to the nearest other sample of all ranks.

    Spreads vectors evenly over the sphere. Distances below 1e-4 count as that: a duplicate's
    logarithm would be infinite, and its gradient would outshine all others.

    Args:
        features: float[b, D], of any length; every rank has equally many.

    Returns:
        This rank's share of the mean; 0 for a single sample.

    Source: Kozachenko–Leonenko entropy as in arXiv:1806.03198, equation 5; DINOv2
    (arXiv:2304.07193), section 4.
    """
    unit = F.normalize(wide(features), dim=1)
    every = gather(unit)
    if len(every) == 1:
        return unit.sum() * 0
    own = rank() * len(unit) + torch.arange(len(unit), device=unit.device)
    cosines = (unit @ every.t()).scatter(1, own[:, None], -torch.inf)
    # A product, not an index: many may have one nearest, and its gradient adds up in no fixed
    # order on a GPU.
    nearest = F.one_hot(cosines.argmax(dim=1), len(every)).to(unit.dtype) @ every
    square = (unit - nearest).square().sum(dim=1)
    return mean_over_ranks(-(square + _NEAREST**2).log() / 2)


def entropy(shares: Tensor) -> Tensor:
    """Nats of each distribution, from 0 to ln K: float[…, K] to float[…]."""
    return torch.special.entr(wide(shares)).sum(dim=-1)
