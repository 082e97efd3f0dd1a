"""Pairs of frames one interval apart, and how the hand moved in between.

Letters: n pairs, N frames of the data set, S their side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tectum_train.data.samples import Samples
from tectum_train.evaluation.measuring.context import Context, starts

__all__ = ["Pairs", "draw_pairs"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Frames one interval apart, and how the hand moved between them."""

    frames: NDArray[np.uint8]
    """[N, S, S, 3], the data set's; only what is looked at is read."""
    first: NDArray[np.int64]
    """[n], where the earlier frames stand."""
    second: NDArray[np.int64]
    """[n], where the later ones do."""
    moved: NDArray[np.float64]
    """[n, 3], metres in the camera's frame: right, down, away."""
    episode: NDArray[np.int64]
    """[n], which episode each is of."""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def earlier(self) -> NDArray[np.uint8]:
        """[n, S, S, 3]."""
        return self.frames[self.first]

    @property
    def later(self) -> NDArray[np.uint8]:
        """[n, S, S, 3]."""
        return self.frames[self.second]

    def at(self, rows: slice | NDArray[np.int64]) -> Pairs:
        """Some of them."""
        return Pairs(
            self.frames,
            self.first[rows],
            self.second[rows],
            self.moved[rows],
            self.episode[rows],
        )

    def still(self) -> Pairs:
        """Each earlier frame beside itself; what moved is told as it was."""
        return replace(self, second=self.first)


def draw_pairs(context: Context, samples: Samples, count: int, stream: str) -> Pairs:
    """Pairs drawn evenly over a data set."""
    gap = context.pair_steps
    index = np.sort(context.generator(stream).permutation(starts(samples, gap))[:count])
    hand = context.states(samples)[:, :3]
    extrinsics = samples.column(context.columns.extrinsics).astype(np.float64)
    rotation = extrinsics[index].reshape(-1, 4, 4)[:, :3, :3]
    moved = np.einsum("nij,nj->ni", rotation, hand[index + gap] - hand[index])
    return Pairs(samples.frames, index, index + gap, moved, samples.episode[index])
