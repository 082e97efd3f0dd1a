"""Vectors of steps before, the newest of them, in a ring.

Letters: K of the queue, n new ones, D width of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["VectorQueue"]


class VectorQueue(nn.Module):
    """The last K vectors, of which group each is, and when each came; all of it in a checkpoint."""

    vectors: Tensor
    group: Tensor
    came: Tensor
    head: Tensor
    turn: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        # Random at first, as MoCo's.
        self.register_buffer("vectors", F.normalize(torch.randn(length, width), dim=1))
        self.register_buffer("group", torch.zeros(length, dtype=torch.long))
        self.register_buffer("came", torch.full((length,), -1, dtype=torch.long))
        self.register_buffer("head", torch.zeros((), dtype=torch.long))  # place of the oldest
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    @property
    def filled(self) -> Tensor:
        """bool[K], False where there is still a random one."""
        return self.came >= 0

    def ages(self) -> Tensor:
        """int64[K], turns since each came; of random ones, one more than there were."""
        return self.turn - self.came

    @torch.no_grad()
    def add(self, vectors: Tensor, group: Tensor | None = None) -> None:
        """Put float[n, D] in the places of the oldest; of more than K, the last K.

        Args:
            vectors: the same on every rank.
            group: int64[n]; None: they are of none.
        """
        length = len(self.vectors)
        kept = vectors[-length:].to(self.vectors.dtype)
        places = (self.head + torch.arange(len(kept), device=kept.device)) % length
        self.vectors[places], self.came[places] = kept, self.turn
        self.group[places] = 0 if group is None else group[-length:]
        self.head.add_(len(kept)).remainder_(length)
        self.turn += 1
