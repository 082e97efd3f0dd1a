"""Random numbers that belong to a sample: a pure function of (seed, epoch, index, purpose).

Counter-based, so a sample is changed alike wherever in a batch, on whichever rank and after
however many others it comes, and again when a run is resumed or a picture is looked at later.

Letters: B samples, n numbers for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Draws"]

_Words = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MOST = 2.0**-53


@dataclass(frozen=True, slots=True)
class Draws:
    """What is drawn for each sample of a batch."""

    seed: int
    """Of the run."""
    epoch: NDArray[np.int64]
    """[B], how often the sample has been seen before."""
    index: NDArray[np.int64]
    """[B], the sample's place in the data set."""

    def __len__(self) -> int:
        return len(self.index)

    def uniform(self, purpose: str, count: int = 1) -> Tensor:
        """float64[B, n] in [0, 1); by another purpose's name they are other ones.

        Source: SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
        """
        name = int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "little")
        state = _mixed(np.array([np.uint64(self.seed % 2**64)]))
        for part in (np.array([name], np.uint64), self.epoch, self.index):
            state = _mixed(state ^ part.astype(np.uint64))
        counter = np.arange(1, count + 1, dtype=np.uint64) * _STEP
        words = _mixed(state[:, None] + counter[None, :])
        return torch.from_numpy((words >> np.uint64(11)).astype(np.float64) * _MOST)

    def between(self, purpose: str, least: float, most: float, count: int = 1) -> Tensor:
        """float64[B, n], uniform from `least` to `most`."""
        return least + (most - least) * self.uniform(purpose, count)

    def normal(self, purpose: str, count: int = 1) -> Tensor:
        """float64[B, n] of mean 0 and standard deviation 1.

        Source: Box and Muller 1958 (doi:10.1214/aoms/1177706645).
        """
        far, way = self.uniform(purpose, 2 * count).chunk(2, dim=1)
        return (-2 * torch.log1p(-far)).sqrt() * torch.cos(2 * torch.pi * way)

    def chosen(self, purpose: str, share: float) -> Tensor:
        """bool[B], True for that share of samples."""
        return self.uniform(purpose)[:, 0] < share


def _mixed(words: _Words) -> _Words:
    """Every bit of the result depends on every bit of the word."""
    words = words + _STEP
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
