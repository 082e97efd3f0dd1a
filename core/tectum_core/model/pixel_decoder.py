"""The MAE decoder: from the tokens of visible patches to the pixels of hidden ones.

With a normalised target it also predicts each patch's mean and spread, so that a
picture can be painted from what the model saw alone; un-normalising with the true
patch's statistics would leak the answer.

Letters: B batch, N patches, K visible ones, D the decoder's width, X numbers in a patch, C groups
of these that are normalised by themselves: one, or the three colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tectum_core.architecture import PixelDecoderConfig, VisionConfig
from tectum_core.model.initial import small_normal
from tectum_core.model.transformer import Transformer
from tectum_core.model.vision import sincos_positions

__all__ = ["PatchPrediction", "PatchTarget", "PixelDecoder"]


@dataclass(frozen=True, slots=True)
class PatchTarget:
    """What the decoder shall say of each patch."""

    values: Tensor
    """float[B, N, X]: pixels, normalised per patch if the configuration says so."""
    mean: Tensor
    """float[B, N, C]."""
    log_spread: Tensor
    """float[B, N, C]: ln of the root of variance + floor."""


@dataclass(frozen=True, slots=True)
class PatchPrediction:
    """What the decoder says of each patch."""

    values: Tensor
    """float[B, N, X], in the target's units."""
    mean: Tensor
    """float[B, N, C]."""
    log_spread: Tensor
    """float[B, N, C]."""
    normalised: bool
    """Whether `values` are normalised per patch."""

    def pixels(self) -> Tensor:
        """float[B, N, X] in the model's input units, from predicted statistics."""
        if not self.normalised:
            return self.values
        # Channels vary slowest.
        groups = self.values.unflatten(-1, (self.mean.shape[-1], -1))
        return (groups * self.log_spread.exp()[..., None] + self.mean[..., None]).flatten(-2)


class PixelDecoder(nn.Module):
    """A light transformer that sees visible tokens and a mask token for every hidden patch.

    Source: MAE, arXiv:2111.06377; reading the instruction's tokens too: arXiv:2302.12766.
    """

    positions: Tensor

    def __init__(
        self, config: PixelDecoderConfig, vision: VisionConfig, text_width: int | None
    ) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.embed = nn.Linear(vision.transformer.width, width)
        self.mask_token = small_normal(width)
        table = sincos_positions(width, vision.steps, vision.grid)
        self.register_buffer("positions", table[None], persistent=False)
        if config.text_context:
            if text_width is None:
                raise ValueError("text_context needs a text trunk")
            self.from_text = nn.Linear(text_width, width)
        self.transformer = Transformer(config.transformer)
        self.final_norm = nn.LayerNorm(width, eps=config.transformer.norm_eps)
        self.paint = nn.Linear(width, vision.patch_values)
        self.groups = 3 if config.channelwise else 1
        self.statistics = nn.Linear(width, 2 * self.groups) if config.normalised_target else None

    def target(self, patches: Tensor) -> PatchTarget:
        """What to predict for patches float[B, N, X] of the model's input."""
        groups = patches.unflatten(-1, (self.groups, -1))
        mean = groups.mean(dim=-1, keepdim=True)
        variance = groups.var(dim=-1, keepdim=True)
        spread = (variance + self.config.variance_floor).sqrt()
        normalised = ((groups - mean) / spread).flatten(-2)
        values = normalised if self.config.normalised_target else patches
        return PatchTarget(values, mean.squeeze(-1), spread.log().squeeze(-1))

    def forward(
        self,
        visible: Tensor,
        keep: Tensor,
        text: Tensor | None = None,
        text_seen: Tensor | None = None,
    ) -> PatchPrediction:
        """Predict every patch.

        Args:
            visible: float[B, K, Dv], the trunk's tokens of the kept patches.
            keep: int64[B, K], where they are.
            text: float[B, L, Dt], the instruction's tokens; None: none.
            text_seen: bool[B, L], False at padding.

        Returns:
            Predictions for all N patches, the visible ones' included.
        """
        batch = visible.shape[0]
        embedded = self.embed(visible)
        x = self.mask_token.to(embedded.dtype).expand(batch, self.positions.shape[1], -1)
        x = x.scatter(1, keep[:, :, None].expand(-1, -1, x.shape[2]), embedded) + self.positions
        seen = None
        if text is not None:
            if not self.config.text_context or text_seen is None:
                raise ValueError("this decoder reads no text, or text_seen is missing")
            x = torch.cat([x, self.from_text(text)], dim=1)
            shown = torch.ones(batch, self.positions.shape[1], dtype=torch.bool, device=x.device)
            seen = torch.cat([shown, text_seen], dim=1)
        x = self.final_norm(self.transformer(x, seen))[:, : self.positions.shape[1]]
        if self.statistics is None:
            zero = torch.zeros_like(x[:, :, :1])
            return PatchPrediction(self.paint(x), zero, zero, normalised=False)
        mean, log_spread = self.statistics(x).chunk(2, dim=-1)
        return PatchPrediction(self.paint(x), mean, log_spread, normalised=True)
