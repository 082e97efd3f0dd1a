"""Losses that compare what was predicted with what came.

Letters: b sequences of this rank, T frames, N latents of a frame, D their width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tectum_train.distributed import all_sum, world_size

__all__ = ["frame_errors", "latent_spread", "mean_error"]


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
    chosen = latents[counted].to(torch.promote_types(latents.dtype, torch.float32))
    count = all_sum(counted.sum().to(chosen.dtype)).clamp(min=1)
    mean = all_sum(chosen.sum(dim=0)) / count
    variance = all_sum((chosen - mean).square().sum(dim=0)) / count
    return variance.mean().sqrt()
