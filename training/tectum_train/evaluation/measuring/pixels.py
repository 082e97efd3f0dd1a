"""Pictures as rows of numbers, for probes of pixels; large ones are shrunk first.

A probe that reads 256 components gains nothing from more than 64 pixels a side, and at
ordinary sizes thousands of pictures would not fit in memory.

Letters: n pictures, S their side, d numbers of one picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

__all__ = ["flat_pixels"]

_SIDE = 64
_BATCH = 256


def flat_pixels(frames: NDArray[np.uint8], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Pictures as rows, from 0 to 1: uint8[N, S, S, 3] at int64[n] to float32[n, d].

    Up to 64 pixels a side they are as they are. Larger ones are averaged over squares: of a whole
    number of pixels where one divides S into 32 to 64, else as nearly equal as pixels allow.
    """
    side = frames.shape[1]
    whole = [factor for factor in range(-(-side // _SIDE), side // 32 + 1) if side % factor == 0]
    kept = side if side <= _SIDE else side // whole[0] if whole else _SIDE
    rows = np.empty((len(index), kept * kept * 3), np.float32)
    for start in range(0, len(index), _BATCH):
        part = frames[index[start : start + _BATCH]]
        row = rows[start : start + _BATCH]
        if kept != side:
            row[:] = _averaged(part, kept).reshape(len(part), -1)
        else:
            row[:] = part.reshape(len(part), -1)
        row /= np.float32(255)
    return rows


def _averaged(frames: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """float32[n, side, side, 3], still from 0 to 255."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    return F.interpolate(pixels, (side, side), mode="area").permute(0, 2, 3, 1).numpy()
