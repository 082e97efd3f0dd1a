"""Codes from vectors: a codebook that is learnt, and a fixed grid.

Letters: B batch, C codes in a latent action, E length of one code's vector, W ranks, n samples that
count, on all of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, VectorQuantize

from tectum_core.architecture import FsqBottleneck, VqBottleneck
from tectum_core.model.bottleneck import Bottled, no_loss

__all__ = ["FiniteScalar", "VectorQuantised"]


class VectorQuantised(nn.Module):
    """A shared codebook, EMA-updated; restarts never stop (LAPA's collapsed when they did).

    A code's gradient passes to what was said as it is (VQ-VAE, arXiv:1711.00937, section 3.2). The
    library would turn and stretch it by |code| / |said| (arXiv:2410.06424), which is without bound
    where little is said, as of a still pair whose change is.
    """

    def __init__(self, config: VqBottleneck, width: int) -> None:
        super().__init__()
        self.commitment = config.commitment
        self.project = nn.Linear(width, config.code_width)
        self.quantise = VectorQuantize(
            dim=config.code_width,
            codebook_size=config.codebook_size,
            decay=config.decay,
            commitment_weight=0.0,  # of samples that count alone, so not the library's mean
            threshold_ema_dead_code=config.restart_below,
            sync_codebook=False,  # it is shown all ranks' vectors
            rotation_trick=False,
            route_gradients_to_input=False,
        )
        self._codebook.replace_sample_fn = _redrawn

    @property
    def _codebook(self) -> Any:
        return self.quantise._codebook  # noqa: SLF001 - the library has no other way

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Bottled:
        """float[B, C, width] and which of B count, bool[B], to its nearest codes."""
        said = _wide(self.project(x))
        # The library leaves autocast on CUDA alone; elsewhere the codebook's averages would be
        # summed in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            entries, codes, _ = self.quantise(said, freeze_codebook=True)
            vectors = entries + (said - said.detach())  # adds exactly 0, and the gradient
            # VQ-VAE (arXiv:1711.00937), equation 3's last term, as a mean over C and E.
            away = said - self.quantise.get_output_from_indices(codes).detach()
            losses = self.commitment * away.square().mean(dim=(1, 2))
            if self.training:
                self._learn(said.detach(), codes, counted)
        return Bottled(vectors, codes, losses)

    @torch.no_grad()
    def _learn(self, said: Tensor, codes: Tensor, counted: Tensor | None) -> None:
        """Let the codebook follow the samples that count, of all ranks; none: it stays as it is.

        Every rank shows it all of them, in one order, so that it is the same on each, and the one
        that a single rank with the whole batch would have.

        Args:
            said: float[B, C, E], this rank's.
            codes: int64[B, C].
            counted: bool[B]; None: all.
        """
        vectors, theirs = _of_all_ranks(said), _of_all_ranks(codes)
        if counted is not None:
            # Asked of the device once, not by each of both; the library asks once more.
            (chosen,) = _of_all_ranks(counted.to(torch.uint8)).nonzero(as_tuple=True)
            vectors, theirs = vectors[chosen], theirs[chosen]
        if len(vectors):
            self._codebook.update_indices(vectors, theirs)


def _of_all_ranks(own: Tensor) -> Tensor:
    """[B, …] of each rank, which has every W-th sample, to [B·W, …] in the order of samples."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


@torch.no_grad()
def _redrawn(vectors: Tensor, count: int) -> Tensor:
    """Vectors of the batch for dead entries of the codebook, each another one while there are any.

    The same on all ranks, whose global generators are seeded alike.

    Args:
        vectors: float[1, n·C, E].
        count: how many.

    Returns:
        float[1, count, E].
    """
    every = vectors[0]
    order = torch.randperm(len(every))  # on the CPU, whose generator ranks have in common
    return every[order[torch.arange(count) % len(every)].to(every.device)][None]


class FiniteScalar(nn.Module):
    """Each code is a point of a fixed grid."""

    def __init__(self, config: FsqBottleneck, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, len(config.levels))
        with torch.device("cpu"):  # it reads its own numbers, which the meta device has not
            self.quantise = FSQ(levels=list(config.levels))

    def forward(self, x: Tensor, _: Tensor | None = None) -> Bottled:
        """float[B, C, width] to its points of the grid."""
        vectors, codes = self.quantise(_wide(self.project(x)))
        return Bottled(vectors, codes.long(), no_loss(x))


def _wide(x: Tensor) -> Tensor:
    """float32, or float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()
