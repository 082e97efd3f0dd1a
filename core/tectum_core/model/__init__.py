"""The model in torch: trunks, decoders, latent actions, and their composition.

Knows its configuration (`architecture`) and torch, nothing of files, words, pixels'
origin or the wire. Shapes are `dtype[dims]`; each module explains its letters once.
"""

from tectum_core.model.fusion import Context, Fusion
from tectum_core.model.latent_action import LatentActionModel
from tectum_core.model.perception import Joint, PerceptionModel
from tectum_core.model.pixel_decoder import PatchPrediction, PatchTarget, PixelDecoder
from tectum_core.model.text import TextOutput, TextTransformer
from tectum_core.model.vision import (
    Replaced,
    VisionOutput,
    VisionTransformer,
    patchify,
    unpatchify,
)
from tectum_core.model.world_model import WorldModel

__all__ = [
    "Context",
    "Fusion",
    "Joint",
    "LatentActionModel",
    "PatchPrediction",
    "PatchTarget",
    "PerceptionModel",
    "PixelDecoder",
    "Replaced",
    "TextOutput",
    "TextTransformer",
    "VisionOutput",
    "VisionTransformer",
    "WorldModel",
    "patchify",
    "unpatchify",
]
