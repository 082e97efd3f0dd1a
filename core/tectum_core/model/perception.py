"""The whole model: a vision trunk and whatever stands on it.

Composition only; each part's arithmetic lives in its own module. Inputs are already
preprocessed tensors, outputs are tensors: files, words and units are others' business.

Letters: B batch, N patches, K visible ones, L text tokens, J joint width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import ModelConfig
from tectum_core.model.fusion import Fusion
from tectum_core.model.latent_action import LatentActionModel
from tectum_core.model.pixel_decoder import PixelDecoder
from tectum_core.model.text import TextTransformer
from tectum_core.model.vision import VisionTransformer
from tectum_core.model.world_model import WorldModel

__all__ = ["Joint", "PerceptionModel"]


class Joint(nn.Module):
    """Projections of both trunks to the space that images and texts share."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.joint is None or config.text is None:
            raise ValueError("a joint space needs `joint` and `text`")
        width = config.joint.width
        self.image = nn.Linear(config.vision.transformer.width, width, bias=False)
        self.text = nn.Linear(config.text.transformer.width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.joint.initial_scale)))
        bias = config.joint.bias
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    def embed_image(self, pooled: Tensor) -> Tensor:
        """float[B, Dv] to unit vectors float[B, J]."""
        return F.normalize(self.image(pooled), dim=-1)

    def embed_text(self, pooled: Tensor) -> Tensor:
        """float[B, Dt] to unit vectors float[B, J]."""
        return F.normalize(self.text(pooled), dim=-1)

    def logits(self, cosine: Tensor) -> Tensor:
        """Cosines of any shape to logits, in float32."""
        scaled = cosine.float() * self.log_scale.float().exp()
        return scaled if self.bias is None else scaled + self.bias.float()


class PerceptionModel(nn.Module):
    """Everything a bundle's weights belong to."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        vision_width = config.vision.transformer.width
        text_width = None if config.text is None else config.text.transformer.width
        self.vision = VisionTransformer(config.vision)
        self.video = None if config.video is None else VisionTransformer(config.video)
        self.text = None if config.text is None else TextTransformer(config.text)
        self.joint = None if config.joint is None else Joint(config)
        self.pixel_decoder = (
            None
            if config.pixel_decoder is None
            else PixelDecoder(config.pixel_decoder, config.vision, text_width)
        )
        self.video_decoder = (
            None
            if config.video_decoder is None or config.video is None
            else PixelDecoder(config.video_decoder, config.video, text_width)
        )
        self.fusion = (
            None
            if config.fusion is None or config.text is None
            else Fusion(
                config.fusion,
                vision_width,
                config.text.transformer.width,
                config.text.vocabulary_size,
                config.actions,
            )
        )
        self.latent_action = (
            None
            if config.latent_action is None
            else LatentActionModel(config.latent_action, config.vision, config.actions)
        )
        self.apply(_initialise)
        if self.latent_action is not None:
            self.latent_action.begin_as_copy()
        self.world_model = None
        if config.world_model is not None:
            # Drawn last, so that the other parts begin as they do without it.
            self.world_model = WorldModel(
                config.world_model, config.vision, config.actions, config.latent_action
            )
            self.world_model.apply(_initialise)
            self.world_model.begin_as_copy()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def _initialise(module: nn.Module) -> None:
    """Xavier for linear layers, as in MAE; embeddings and tokens keep their own small normals."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
