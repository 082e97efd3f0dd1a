"""What passes from inverse to forward dynamics: a short vector, or a few codes.

Letters: B batch, C codes in a latent action, E length of one code's vector, b samples of one rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, VectorQuantize

from tectum_core.architecture import (
    Bottleneck,
    ContinuousBottleneck,
    FsqBottleneck,
    VqBottleneck,
)

__all__ = [
    "Bottled",
    "bottleneck_for",
    "code_count",
    "code_width",
    "codebook_size",
    "latent_width",
    "said",
]


@dataclass(frozen=True, slots=True)
class Bottled:
    """A latent action."""

    vectors: Tensor
    """float[B, C, E]; C = 1 if continuous."""
    codes: Tensor | None
    """int64[B, C]; None if continuous."""
    loss: Tensor
    """float32 scalar that the bottleneck adds to the objective."""


class _Continuous(nn.Module):
    """A projection and nothing else."""

    def __init__(self, config: ContinuousBottleneck, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.width)

    def forward(self, x: Tensor) -> Bottled:
        return Bottled(self.project(x), None, x.new_zeros((), dtype=torch.float32))


class _VectorQuantised(nn.Module):
    """A shared codebook, EMA-updated; restarts never stop (LAPA's collapsed when they did)."""

    def __init__(self, config: VqBottleneck, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.code_width)
        self.quantise = VectorQuantize(
            dim=config.code_width,
            codebook_size=config.codebook_size,
            decay=config.decay,
            commitment_weight=config.commitment,
            threshold_ema_dead_code=config.restart_below,
        )
        codebook = self.quantise._codebook  # noqa: SLF001 - the library has no other way
        codebook.replace_sample_fn = partial(_redrawn, codes=config.codes)

    def forward(self, x: Tensor) -> Bottled:
        said = self.project(x).float()
        # The library leaves autocast on CUDA alone; elsewhere the codebook's averages would be
        # summed in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            vectors, codes, loss = self.quantise(said)
        return Bottled(vectors, codes, loss.sum())


@torch.no_grad()
def _redrawn(vectors: Tensor, count: int, codes: int) -> Tensor:
    """Vectors of the batch for dead entries of the codebook, each another one while there are any.

    The same on all ranks, and those that one rank with all of the batch would draw, where ranks
    have every W-th of its samples and global generators that are seeded alike. (The library lets
    each rank draw some of its own.)

    Args:
        vectors: float[1, b·C, E], this rank's.
        count: how many.
        codes: C.

    Returns:
        float[1, count, E].
    """
    every = vectors[0]
    if dist.is_initialized() and dist.get_world_size() > 1:
        parts = [torch.empty_like(every) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, every.contiguous())
        samples = [part.unflatten(0, (-1, codes)) for part in parts]
        every = torch.stack(samples, dim=1).flatten(0, 2)
    order = torch.randperm(len(every))  # on the CPU, whose generator ranks have in common
    return every[order[torch.arange(count) % len(every)].to(every.device)][None]


class _FiniteScalar(nn.Module):
    """Each code is a point of a fixed grid."""

    def __init__(self, config: FsqBottleneck, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, len(config.levels))
        with torch.device("cpu"):  # it reads its own numbers, which the meta device has not
            self.quantise = FSQ(levels=list(config.levels))

    def forward(self, x: Tensor) -> Bottled:
        vectors, codes = self.quantise(self.project(x).float())
        return Bottled(vectors, codes.long(), x.new_zeros((), dtype=torch.float32))


def bottleneck_for(
    config: Bottleneck, width: int
) -> _Continuous | _VectorQuantised | _FiniteScalar:
    """The module that `config` describes, reading tokens float[B, C, width]."""
    match config:
        case ContinuousBottleneck():
            return _Continuous(config, width)
        case VqBottleneck():
            return _VectorQuantised(config, width)
        case FsqBottleneck():
            return _FiniteScalar(config, width)


def codebook_size(config: Bottleneck) -> int:
    """Values one code can take; 0 if continuous."""
    match config:
        case ContinuousBottleneck():
            return 0
        case VqBottleneck():
            return config.codebook_size
        case FsqBottleneck():
            return math.prod(config.levels)


def latent_width(config: Bottleneck) -> int:
    """Length of the whole latent action's vector, C·E."""
    match config:
        case ContinuousBottleneck():
            return config.width
        case VqBottleneck():
            return config.codes * config.code_width
        case FsqBottleneck():
            return config.codes * len(config.levels)


def said(config: Bottleneck) -> int:
    """Tokens that inverse dynamics hands to the bottleneck, C; 1 if continuous."""
    return 1 if isinstance(config, ContinuousBottleneck) else config.codes


def code_width(config: Bottleneck) -> int:
    """Length of one token behind the bottleneck, E."""
    return latent_width(config) // said(config)


def code_count(config: Bottleneck) -> int:
    """Codes in one latent action, C; 0 if continuous."""
    return 0 if isinstance(config, ContinuousBottleneck) else config.codes
