"""What an episode depends on, and its random numbers.

An episode is a pure function of (seed, split, family, index): every draw comes from a generator
named by that key, the attempt and the purpose, so no draw depends on how many came before it, on
which process made the episode, or on which other episodes were asked for.
"""

from dataclasses import dataclass, replace

import numpy as np

SPLITS = ("train", "test")
PURPOSES = (
    "cells",
    "layout",
    "start",
    "noise",
    "instruction",
    "camera",
    "light",
    "colour",
    "objects",
    "wander",
)


@dataclass(frozen=True, slots=True)
class EpisodeKey:
    """Names one episode."""

    seed: int
    """The run's seed, ≥ 0."""
    split: str
    """`train` or `test`."""
    family: int
    """Index into `families.FAMILIES`."""
    index: int
    """Which episode of that family in that split, from 0."""

    def first(self) -> "EpisodeKey":
        """The family's first episode: the key of draws that its episodes share."""
        return replace(self, index=0)


def generator(key: EpisodeKey, attempt: int, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose of one attempt at one episode.

    Raises:
        ValueError: the split or the purpose is unknown.
    """
    if key.split not in SPLITS:
        raise ValueError(f"split is {key.split!r}; allowed: {', '.join(SPLITS)}")
    if purpose not in PURPOSES:
        raise ValueError(f"purpose is {purpose!r}; allowed: {', '.join(PURPOSES)}")
    entropy = (
        key.seed,
        SPLITS.index(key.split),
        key.family,
        key.index,
        attempt,
        PURPOSES.index(purpose),
    )
    return np.random.default_rng(entropy)


def episode_keys(
    seed: int, split: str, families: tuple[int, ...], per_family: int
) -> list[EpisodeKey]:
    """All episodes of a split, one of each family in turn, so any beginning is balanced."""
    return [
        EpisodeKey(seed, split, family, index) for index in range(per_family) for family in families
    ]
