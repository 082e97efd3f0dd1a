"""The tower that all peers serve: a bundle of ours, from JPEG files to vectors.

Runs in a peer's own environment, which has torch and what the model core needs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.bundle import Repository, read_bundle
from tectum_core.image import decode
from tectum_core.numerics import Numerics
from tectum_core.predictor import Predictor

__all__ = ["LARGEST", "Tower"]

LARGEST = 32
"""Files in the largest batch, as Tectum's worker has it."""
_WAY = {"compiled": True, "eager": False}


class Tower:
    """Embeds; asked by one thread at a time.

    The environment says which: TOWER_REPOSITORY and TOWER_NAME, the bundle; TOWER_NUMERICS, what it
    computes in, as `float32, eager`; TOWER_THREADS, torch's.
    """

    def __init__(self) -> None:
        """Load, and run each size of a batch that is compiled for itself."""
        torch.set_num_threads(int(os.environ["TOWER_THREADS"]))
        located, _ = Repository(os.environ["TOWER_REPOSITORY"]).locate(os.environ["TOWER_NAME"])
        precision, way = os.environ["TOWER_NUMERICS"].split(", ")
        numerics = Numerics(precision, _WAY[way])
        self._predictor = Predictor(read_bundle(located, os.environ["TOWER_NAME"]), "cpu", numerics)
        side = self._predictor.config.images.size
        for size in (1, 2, LARGEST):
            self._predictor.embed_images([np.zeros((side, side, 3), np.uint8)] * size, "joint")

    def embed(self, files: Sequence[bytes]) -> NDArray[np.float32]:
        """Unit vectors [N, D] of so many JPEG files."""
        return self._predictor.embed_images(
            [decode(bytes(file), max_pixels=2**24) for file in files], "joint"
        )
