"""What passes from inverse to forward dynamics: a short vector, or a few codes.

Letters: B batch, C codes in a latent action, E length of one code's vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tectum_core.architecture import (
    Bottleneck,
    ContinuousBottleneck,
    FsqBottleneck,
    VqBottleneck,
)

if TYPE_CHECKING:
    from tectum_core.model.quantisers import FiniteScalar, VectorQuantised

__all__ = [
    "Bottled",
    "bottleneck_for",
    "code_count",
    "code_width",
    "codebook_size",
    "latent_width",
    "no_loss",
    "said",
]


@dataclass(frozen=True, slots=True)
class Bottled:
    """A latent action."""

    vectors: Tensor
    """float[B, C, E]; C = 1 if continuous."""
    codes: Tensor | None
    """int64[B, C]; None if continuous."""
    losses: Tensor
    """float[B], float32 or wider: what the bottleneck adds to each sample's loss."""


class _Continuous(nn.Module):
    """A projection and nothing else."""

    def __init__(self, config: ContinuousBottleneck, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.width)

    def forward(self, x: Tensor, _: Tensor | None = None) -> Bottled:
        return Bottled(self.project(x), None, no_loss(x))


def no_loss(x: Tensor) -> Tensor:
    """0 of each sample of [B, …]."""
    return x.new_zeros(len(x), dtype=torch.float32)


def bottleneck_for(config: Bottleneck, width: int) -> _Continuous | VectorQuantised | FiniteScalar:
    """The module that `config` describes.

    It reads tokens float[B, C, width] and, as it learns, which samples of them count: bool[B], of
    which ranks may have more or fewer; None: all.
    """
    if isinstance(config, ContinuousBottleneck):
        return _Continuous(config, width)
    # Here, since the quantisers' library takes as long to import as torch does, and most models
    # have none.
    from tectum_core.model.quantisers import FiniteScalar, VectorQuantised

    match config:
        case VqBottleneck():
            return VectorQuantised(config, width)
        case FsqBottleneck():
            return FiniteScalar(config, width)


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
