"""Losses that compare what was predicted with what came.

Letters: b sequences of this rank, T frames, N latents of a frame, D their width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tectum_train.distributed import all_sum, world_size
from tectum_train.losses.precision import sum_dtype

__all__ = ["frame_errors", "latent_spread", "latent_sums", "mean_error", "spread_of"]


def frame_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of each frame, in float32 or wider.

    Args:
        predicted, target: float[b, T, N, D].

    Returns:
        float32[b, T]; for latents at mean 0 and spread 1, 2 is what unrelated ones have.

    Source: V-JEPA 2-AC (arXiv:2506.09985), equations 2 and 3, with squares for absolute values:
    what cannot be known is then predicted as its mean, not its median.
    """
    wide = torch.promote_types(target.dtype, torch.float32)
    return (predicted.to(wide) - target.to(wide)).square().mean(dim=(2, 3))


def mean_error(errors: Tensor, counted: Tensor, among: Tensor | None = None) -> Tensor:
    """Their mean over the frames that count, of all ranks.

    Args:
        errors: float[b, T].
        counted: bool[b, T], False where the episode had ended.
        among: bool[b, …], whose number divides the sum in place of that of the errors that count,
            so that several means have one divisor.

    Returns:
        This rank's share: averaged over ranks it is the mean; 0 if nothing counts anywhere.
    """
    weight = counted.to(errors.dtype)
    number = all_sum((counted if among is None else among).sum().to(errors.dtype)).clamp(min=1)
    # The weights first: where none counts, gradients are multiplied by 0.
    return (errors * (weight * (world_size() / number))).sum()


@torch.no_grad()
def latent_spread(latents: Tensor, counted: Tensor) -> Tensor:
    """How much latents differ from frame to frame: near 0 once an encoder has collapsed.

    Args:
        latents: float[b, T, N, D], at mean 0 and spread 1 each.
        counted: bool[b, T].

    Returns:
        Scalar: the root of the numbers' variances over all frames of all ranks, averaged; 0 to 1.
    """
    return spread_of(*latent_sums(latents, counted))


@torch.no_grad()
def latent_sums(latents: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `spread_of` is made of, arguments as `latent_spread`; those of pieces add up.

    Returns:
        Of all ranks' frames that count: their number, their sum, float64[N, D], and the sum of the
        squares of all their numbers.
    """
    dtype, chosen = sum_dtype(latents.device), latents[counted]
    squares = torch.linalg.vector_norm(chosen, dtype=dtype).square()
    return (
        all_sum(counted.sum().to(dtype)),
        all_sum(chosen.sum(dim=0, dtype=dtype)),
        all_sum(squares),
    )


def spread_of(number: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """`latent_spread`, of what `latent_sums` adds up."""
    number = number.clamp(min=1)
    size = squares / number / total.numel()
    variance = size - (total / number).square().mean()
    # What rounding so many numbers leaves of equal frames is no spread.
    least = torch.finfo(size.dtype).eps * number * size
    return variance.where(variance > least, 0).sqrt()
