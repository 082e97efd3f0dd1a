"""How much each patch changes: what masks by frame difference hide first.

Of clips, for training and for serving's Reconstruct alike; of pictures, whose later frame a
request does not have, for training alone.

Letters: n samples, N patches or tubelets, T frames, H×W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tectum_core.architecture import VisionConfig
from tectum_core.model import patchify

__all__ = ["clip_change", "picture_change"]


def picture_change(pixels: Tensor, later: Tensor, trunk: VisionConfig) -> Tensor:
    """How much each patch of float[n, 3, H, W] differs from a later frame.

    Returns:
        float[n, N], mean squared difference.
    """
    return patchify((later - pixels).square(), trunk.patch_size).mean(dim=-1)


def clip_change(clips: Tensor, trunk: VisionConfig) -> Tensor:
    """How much each tubelet of float[n, 3, T, H, W] differs from the frames about it.

    Returns:
        float[n, N], mean squared difference of its frames to those before and after.
    """
    step = clips.diff(dim=2).square()
    # The first frame has none before it, the last none after: each counts its one neighbour.
    before = torch.cat([step[:, :, :1], step], dim=2)
    after = torch.cat([step, step[:, :, -1:]], dim=2)
    both = patchify((before + after) / 2, trunk.patch_size, trunk.tubelet_frames)
    return both.mean(dim=-1)
