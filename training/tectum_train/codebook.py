"""A codebook that follows what is quantised by it: moving averages, and dead codes drawn anew.

The same on every rank, and the same as one rank would have with all ranks' vectors. The core's own
bottleneck of latent actions keeps a library's codebook, for there are bundles with such.

Letters: b samples of this rank, W ranks, N vectors of a sample, n = b·N·W vectors in all, E length
of a code's vector, K codes.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from tectum_train.distributed import all_sum, rank, world_size
from tectum_train.losses.codes import code_uses, nearest, sums_of_codes

__all__ = ["Codebook"]


class Codebook(nn.Module):
    """K vectors, each the moving average of those that it stands for.

    With γ the decay, n_i the vectors of a step that code i is nearest to, and s_i their sum:
    N_i ← γ N_i + (1 − γ) n_i, S_i ← γ S_i + (1 − γ) s_i, and the code is S_i / N_i. A code whose
    N_i falls below a share of n / K is put in the place of a vector drawn from the step's. This
    never ends, for codebooks collapse where it does; at the beginning it happens to all of them.

    Source: VQ-VAE (arXiv:1711.00937), appendix A.1; redrawing: Jukebox (arXiv:2005.00341).

    Args:
        size: K.
        width: E.
        decay: γ.
        restart_below: the share.
    """

    vectors: Tensor
    uses: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, size: int, width: int, decay: float, restart_below: float) -> None:
        super().__init__()
        self.decay = decay
        self.restart_below = restart_below
        self.register_buffer("vectors", torch.randn(size, width))
        self.register_buffer("uses", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def codes(self, vectors: Tensor) -> Tensor:
        """The nearest code of each: float[…, E] to int64[…]."""
        with torch.autocast(vectors.device.type, enabled=False):
            found = nearest(vectors.flatten(0, -2), self.vectors)
        return found.view(vectors.shape[:-1])

    def of(self, codes: Tensor) -> Tensor:
        """The vectors of codes: int64[…] to float[…, E]."""
        return self.vectors[codes]

    @torch.no_grad()
    def learn(self, vectors: Tensor, codes: Tensor) -> None:
        """Follow a step's vectors, as many on each rank.

        Args:
            vectors: float[b, N, E].
            codes: int64[b, N], which each of them had.
        """
        vectors = vectors.to(self.vectors.dtype)
        uses = code_uses(codes, len(self)).to(self.uses.dtype)
        sums = sums_of_codes(vectors.flatten(0, 1), codes.flatten(), len(self))
        self.uses.lerp_(uses, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        fewest = self.restart_below * codes.numel() * world_size() / len(self)
        dead = self.uses < fewest
        # No credit: a code that begins with more uses than it finds outlives its use by as long.
        self.uses.masked_fill_(dead, fewest)
        drawn = self._drawn(vectors)
        self.sums.copy_(torch.where(dead[:, None], drawn * fewest, self.sums))
        self.vectors.copy_(self.sums / self.uses[:, None])
        self.steps += 1

    def _drawn(self, vectors: Tensor) -> Tensor:
        """float[K, E] of all ranks' float[b, N, E], no one twice while there are enough.

        Which ones is settled by the number of the step, so that ranks agree and a resumed run does
        as the uninterrupted one.
        """
        count, size = vectors.shape[0] * vectors.shape[1] * world_size(), len(self)
        generator = Generator().manual_seed(int(self.steps))
        order = torch.randperm(count, generator=generator)
        chosen = order[torch.arange(size) % count].to(vectors.device)
        sample, place = chosen // vectors.shape[1], chosen % vectors.shape[1]
        # Every W-th sample of a step is a rank's (`distributed.own_samples`).
        here = sample % world_size() == rank()
        found = vectors[sample // world_size(), place]
        return all_sum(torch.where(here[:, None], found, torch.zeros_like(found)))
