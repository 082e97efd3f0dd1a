"""What the predictor takes of pictures, and what it makes of a batch: arrays, and their shapes.

Letters: B batch, S the model's side, N patches, L text tokens, W of them that are asked for, V
vocabulary, A numbers in an action, C codes, E length of one code's vector, T frames, k decoded
steps, s side of the frames of a latent action, F frames of a rollout, D length of a latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "FilledImages",
    "FilledTexts",
    "Float32",
    "LatentActions",
    "Picture",
    "Rollouts",
    "Uint8Image",
    "as_numpy",
    "as_rows",
]

Uint8Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Picture = Uint8Image | Tensor
"""What the predictor takes as one: uint8[H, W, 3] of any size, or what `Predictor.fitted` has made
of it; of a clip, likewise with a leading T."""


@dataclass(frozen=True, slots=True)
class FilledImages:
    """Pictures (or clips, with a leading T) as the model saw and as it filled them in."""

    seen: Uint8Image
    """uint8[B, T, S, S, 3], before masking."""
    filled: Uint8Image
    """uint8[B, T, S, S, 3], hidden patches painted by the model."""
    error: Float32
    """float32[B, N], mean squared error in target units; NaN where visible."""
    painted: Tensor
    """float32[B, T, 3, S, S], `filled` before it was rounded, in the model's input units; stays on
    the model's device."""


@dataclass(frozen=True, slots=True)
class FilledTexts:
    """What the hidden tokens of texts may be."""

    probabilities: Float32
    """float32[B, L, V], over the vocabulary at each place; meaningful at hidden ones. Where some
    places were asked for, float32[W, V] of these, text by text."""


@dataclass(frozen=True, slots=True)
class LatentActions:
    """What changed between pairs of frames."""

    vectors: Float32
    """float32[B, C·E]."""
    codes: NDArray[np.int64] | None
    """int64[B, C]; None if continuous."""
    actions: Float32 | None
    """float32[B, k, A] in the robot's units; None if not asked for."""
    frames: Uint8Image | None
    """uint8[B, s, s, 3], the predicted later frames; None if not asked for."""
    predicted: Tensor | None
    """float32[B, 3, s, s], `frames` before they were rounded, in the model's input units; stays on
    the model's device."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What would be seen if something were done."""

    latents: Float32
    """float32[B, F, N, D], or [B, F, D] if pooled: at mean 0 and spread 1 each."""
    distances: Float32 | None
    """float32[B, F], mean squared difference to the goal's latents: 0 is the goal. Latents are
    normalised one by one and not centred, so what unrelated frames have depends on the model;
    None without a goal."""
    frames: Uint8Image | None
    """uint8[B, F, S, S, 3]; None if not asked for."""
    painted: Tensor | None
    """float32[B, F, 3, S, S], `frames` before they were rounded, in the model's input units; stays
    on the model's device."""


def as_numpy(tensor: Tensor) -> Float32:
    """float32 on the host, shaped as the tensor."""
    return tensor.float().cpu().numpy()


def as_rows(pixels: Tensor) -> Uint8Image:
    """uint8[..., 3, S, S] to uint8[..., S, S, 3] on the host."""
    return np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())
