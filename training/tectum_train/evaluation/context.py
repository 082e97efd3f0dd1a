"""What all measures share: the bundle's predictor, its random twin, the data, the world.

Vectors of many frames are computed in batches, once, through the predictor that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.bundle import Bundle
from tectum_core.model import PerceptionModel
from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.world import World

__all__ = ["Context", "in_batches", "of_others", "random_twin"]

Frames = NDArray[np.uint8]
_BATCH = 128


@dataclass(frozen=True)
class Context:
    """One evaluation."""

    predictor: Predictor
    """The bundle under test."""
    twin: Predictor
    """The same architecture with random weights."""
    train: Samples
    """Where probes are fitted."""
    test: Samples
    """Where everything is measured: episodes of layouts never trained on."""
    world: World
    """Families, pairs, held-out sentences."""
    state: str
    """Feature with the robot's state; its first three numbers are the hand's position, metres."""
    action: str
    """Feature with the actions."""
    pair_steps: int
    """Steps between the frames of a pair."""
    seed: int = 0
    """Of choices such as masks and shuffles."""
    family: str = "task_family"
    """Feature with the task family's index."""
    extrinsics: str = "camera.extrinsics"
    """Feature with the 4×4 world-to-camera matrix, row by row."""

    def families(self, samples: Samples) -> NDArray[np.int64]:
        """[N], each frame's task family."""
        return samples.column(self.family).astype(np.int64)


def in_batches(
    compute: Callable[[Sequence[Frames]], NDArray[np.float32]], frames: Frames
) -> NDArray[np.float32]:
    """`compute` over all frames uint8[n, S, S, 3], in batches."""
    starts = range(0, len(frames), _BATCH)
    return np.concatenate([compute(list(frames[s : s + _BATCH])) for s in starts])


def of_others(groups: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
    """For each sample, another one of a different group."""
    chosen = np.empty(len(groups), np.int64)
    for row, group in enumerate(groups):
        chosen[row] = draw.choice(np.flatnonzero(groups != group))
    return chosen


def random_twin(bundle: Bundle, seed: int) -> Predictor:
    """The bundle with weights drawn anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1_000_003 + seed)
        model = PerceptionModel(bundle.config.model).eval().requires_grad_(False)
    return Predictor(replace(bundle, model=model))


def cache_folder() -> Path:
    """Where decoded frames lie unless a recipe says otherwise."""
    return Path("~/.cache/tectum/frames").expanduser()
