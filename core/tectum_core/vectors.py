"""From pixels and tokens to vectors, on the device: what `Predictor` embeds with.

Letters: B batch, S the model's side, T frames, N patches, D width, J joint width, L text tokens.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tectum_core.inputs import CapabilityMissing
from tectum_core.model import PerceptionModel
from tectum_core.model.vision import VisionTransformer

__all__ = ["VectorName", "picture_vectors", "text_vectors"]

VectorName = Literal["joint", "pooled", "tokens"]


def picture_vectors(
    model: PerceptionModel, trunk: VisionTransformer, pixels: Tensor, vector: VectorName
) -> Tensor:
    """Vectors of pictures or clips.

    Args:
        model: whose trunk it is.
        trunk: which reads them.
        pixels: float32[B, 3, S, S] or float32[B, 3, T, S, S].
        vector: which; joint ones are of pictures.

    Returns:
        float[B, J], [B, D] or [B, N, D].

    Raises:
        CapabilityMissing: "joint" without a joint space.
    """
    if vector == "joint" and model.joint is None:
        raise CapabilityMissing("this model has no joint space")
    output = trunk(pixels)
    if vector == "tokens":
        return output.tokens
    if vector == "pooled" or model.joint is None:
        return output.pooled
    return model.joint.embed_image(output.pooled)


def text_vectors(model: PerceptionModel, ids: Tensor, seen: Tensor) -> Tensor:
    """Texts in the joint space: int64[B, L] and bool[B, L] to float[B, J].

    Raises:
        CapabilityMissing: there is none.
    """
    if model.joint is None or model.text is None:
        raise CapabilityMissing("this model has no text path")
    return model.joint.embed_text(model.text(ids, seen).pooled)
