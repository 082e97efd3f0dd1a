"""Latent actions: name what changed between two frames, and prove it by predicting the later one.

Inverse dynamics reads both frames, a bottleneck keeps a few numbers or codes of what
it found, and forward dynamics must make the later frame from the earlier one and
those numbers alone. No action labels enter; the optional decoder to the robot's own
actions is trained beside it, never through it.

Letters: B batch, N patches, X numbers in a patch, D width, C codes, E code width, k decoded steps,
A numbers in an action, Dv the trunk's width.

Source: LAPO (arXiv:2312.10812), LAPA (arXiv:2410.11758).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import ActionConfig, LatentActionConfig, VisionConfig
from tectum_core.model.bottleneck import Bottled, bottleneck_for, latent_width
from tectum_core.model.transformer import Transformer
from tectum_core.model.vision import patchify, unpatchify

__all__ = ["LatentActionModel"]


class LatentActionModel(nn.Module):
    """Inverse dynamics, bottleneck, forward dynamics, and an action decoder beside them."""

    def __init__(
        self, config: LatentActionConfig, vision: VisionConfig, actions: ActionConfig | None
    ) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        trunk_width = vision.transformer.width
        features = config.patch_values if config.source == "pixels" else trunk_width
        self.positions = nn.Parameter(torch.randn(1, config.grid**2, width) * 0.02)
        # One token for a patch of both frames: what moved is compared in place.
        self.embed_pair = nn.Linear(2 * features, width)
        self.bottleneck = bottleneck_for(config.bottleneck, width)
        self.queries = nn.Parameter(torch.randn(1, self.bottleneck.tokens, width) * 0.02)
        self.inverse = Transformer(config.transformer)
        self.inverse_norm = nn.LayerNorm(width, eps=config.transformer.norm_eps)
        self.embed_earlier = nn.Linear(features, width)
        self.embed_latent = nn.Linear(self.bottleneck.code_width, width)
        self.forward_dynamics = Transformer(config.transformer)
        self.forward_norm = nn.LayerNorm(width, eps=config.transformer.norm_eps)
        self.paint_change = nn.Linear(width, config.patch_values)
        self.action_decoder = None
        if config.decoded_steps and actions is not None:
            self.decoded_shape = (config.decoded_steps, actions.dimensions)
            self.action_decoder = nn.Sequential(
                nn.Linear(latent_width(config.bottleneck) + trunk_width, 2 * width),
                nn.GELU(),
                nn.Linear(2 * width, config.decoded_steps * actions.dimensions),
            )

    def begin_as_copy(self) -> None:
        """Let forward dynamics begin by predicting no change, which is nearly right everywhere."""
        nn.init.zeros_(self.paint_change.weight)
        nn.init.zeros_(self.paint_change.bias)

    def frames(self, pixels: Tensor) -> Tensor:
        """Frames at this module's size s: float[B, 3, H, W] to float[B, 3, s, s]."""
        size = (self.config.image_size, self.config.image_size)
        if pixels.shape[-2:] == size:
            return pixels
        return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)

    def infer(
        self, earlier: Tensor, later: Tensor, trunk: tuple[Tensor, Tensor] | None = None
    ) -> Bottled:
        """Inverse dynamics and bottleneck.

        Args:
            earlier, later: float[B, 3, s, s], from `frames`.
            trunk: both frames' trunk tokens, float[B, N, Dv] each; required if source is "trunk".

        Returns:
            The latent actions.
        """
        before, after = self._features(earlier, later, trunk)
        pair = self.embed_pair(torch.cat([before, after], dim=-1)) + self.positions
        queries = self.queries.expand(pair.shape[0], -1, -1).to(pair.dtype)
        x = self.inverse(torch.cat([queries, pair], dim=1))
        bottled: Bottled = self.bottleneck(self.inverse_norm(x[:, : queries.shape[1]]))
        return bottled

    def predict(
        self, earlier: Tensor, vectors: Tensor, trunk_earlier: Tensor | None = None
    ) -> Tensor:
        """Forward dynamics.

        Args:
            earlier: float[B, 3, s, s].
            vectors: float[B, C, E], latent actions.
            trunk_earlier: float[B, N, Dv]; required if source is "trunk".

        Returns:
            float[B, 3, s, s], the later frame.
        """
        patches = patchify(earlier, self.config.patch_size)
        features = patches if self.config.source == "pixels" else _required(trunk_earlier)
        tokens = self.embed_earlier(features) + self.positions
        latents = self.embed_latent(vectors)
        x = self.forward_dynamics(torch.cat([latents, tokens], dim=1))[:, latents.shape[1] :]
        change = unpatchify(
            self.paint_change(self.forward_norm(x)), self.config.patch_size, 1, 1
        ).squeeze(2)
        return earlier + change

    def decode_actions(self, vectors: Tensor, pooled_earlier: Tensor) -> Tensor:
        """The robot's own actions between the frames.

        The scene enters through the trunk's pooled features of the earlier frame, for a
        latent action says what moved in the picture, and actions live in the robot's axes.

        Args:
            vectors: float[B, C, E].
            pooled_earlier: float[B, Dv].

        Returns:
            float[B, k, A], standardised.
        """
        if self.action_decoder is None:
            raise ValueError("this model decodes no actions")
        joined = torch.cat([vectors.flatten(1), pooled_earlier], dim=-1)
        decoded: Tensor = self.action_decoder(joined)
        return decoded.view(-1, *self.decoded_shape)

    def _features(
        self, earlier: Tensor, later: Tensor, trunk: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        if self.config.source == "pixels":
            return (
                patchify(earlier, self.config.patch_size),
                patchify(later, self.config.patch_size),
            )
        if trunk is None:
            raise ValueError("this module reads the trunk's tokens, and none were given")
        return trunk


def _required(tokens: Tensor | None) -> Tensor:
    if tokens is None:
        raise ValueError("this module reads the trunk's tokens, and none were given")
    return tokens
