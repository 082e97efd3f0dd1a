"""Latent actions: name what changed between two frames, and prove it by predicting the later one.

Inverse dynamics reads both frames, a bottleneck keeps a few numbers or codes of what
it found, and forward dynamics must make the later frame, or what the trunk sees of
it, from the earlier one and those numbers alone. No action labels enter; the optional
decoder to the robot's own actions is trained beside it, never through it.

Letters: B batch, s side of the module's frames, N trunk tokens, C codes, E code width,
k decoded steps, A numbers in an action, Dv the trunk's width.

Source: LAPO (arXiv:2312.10812), LAPA (arXiv:2410.11758).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import (
    ActionConfig,
    LatentActionConfig,
    TransformerDynamicsConfig,
    VisionConfig,
)
from tectum_core.model.bottleneck import Bottled, bottleneck_for, code_width, latent_width, said
from tectum_core.model.dynamics import ConvolutionDynamics, TransformerDynamics
from tectum_core.model.initial import begin_at_zero

__all__ = ["LatentActionModel"]

_DECODER_WIDTH = 256


class LatentActionModel(nn.Module):
    """Inverse dynamics, bottleneck, forward dynamics, and an action decoder beside them."""

    def __init__(
        self, config: LatentActionConfig, vision: VisionConfig, actions: ActionConfig | None
    ) -> None:
        super().__init__()
        self.config = config
        trunk_width = vision.transformer.width
        tokens, width = said(config.bottleneck), code_width(config.bottleneck)
        self.dynamics: TransformerDynamics | ConvolutionDynamics
        if isinstance(config.dynamics, TransformerDynamicsConfig):
            self.dynamics = TransformerDynamics(
                config.dynamics, config.image_size, trunk_width, tokens, width, config.target
            )
        else:
            self.dynamics = ConvolutionDynamics(config.dynamics, config.image_size, tokens, width)
        self.bottleneck = bottleneck_for(config.bottleneck, self.dynamics.width)
        self.action_decoder = None
        if config.decoded_steps and actions is not None:
            self.decoded_shape = (config.decoded_steps, actions.dimensions)
            self.action_decoder = nn.Sequential(
                nn.Linear(latent_width(config.bottleneck) + trunk_width, _DECODER_WIDTH),
                nn.GELU(),
                nn.Linear(_DECODER_WIDTH, config.decoded_steps * actions.dimensions),
            )

    def begin_as_copy(self) -> None:
        """Let forward dynamics begin by predicting no change."""
        begin_at_zero(self.dynamics.paint)

    def frames(self, pixels: Tensor) -> Tensor:
        """Frames at this module's size s: float[B, 3, H, W] to float[B, 3, s, s]."""
        size = (self.config.image_size, self.config.image_size)
        if pixels.shape[-2:] == size:
            return pixels
        return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)

    def infer(
        self,
        earlier: Tensor,
        later: Tensor,
        trunk: tuple[Tensor, Tensor] | None = None,
        counted: Tensor | None = None,
    ) -> Bottled:
        """Inverse dynamics and bottleneck.

        Args:
            earlier, later, trunk: as for `say`.
            counted: bool[B], of which pairs a codebook that learns may learn; None: all.
        """
        bottled: Bottled = self.bottleneck(self.say(earlier, later, trunk), counted)
        return bottled

    def say(
        self, earlier: Tensor, later: Tensor, trunk: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """What inverse dynamics finds, before the bottleneck.

        Args:
            earlier, later: float[B, 3, s, s], from `frames`.
            trunk: both frames' trunk tokens, float[B, N, Dv] each; required if the
                configuration reads the trunk.

        Returns:
            float[B, C, D], D the dynamics' width.
        """
        said = self.dynamics.say(earlier, later, trunk)
        if self.config.says == "pair":
            return said
        still = None if trunk is None else (trunk[0], trunk[0])
        return said - self.dynamics.say(earlier, earlier, still)

    def target(self, frame: Tensor, tokens: Tensor | None = None) -> Tensor:
        """What forward dynamics predicts of a frame.

        Args:
            frame: float[B, 3, s, s], from `frames`.
            tokens: the trunk's, float[B, N, Dv]; required if latents are predicted.

        Returns:
            The frame itself, or float32[B, N, Dv], each token at mean 0 and spread 1.
        """
        if self.config.target == "pixels":
            return frame
        if tokens is None:
            raise ValueError("these dynamics predict the trunk's tokens, and none were given")
        wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        return F.layer_norm(wide, wide.shape[-1:])

    def predict(
        self,
        earlier: Tensor,
        vectors: Tensor,
        trunk_earlier: Tensor | None = None,
        carried: Tensor | None = None,
    ) -> Tensor:
        """Forward dynamics: what the earlier frame is, and on top of it the change.

        Args:
            earlier: float[B, 3, s, s].
            vectors: float[B, C, E], latent actions.
            trunk_earlier: float[B, N, Dv]; required if the configuration reads the trunk or
                predicts its tokens.
            carried: the earlier frame's `target`, which the change is added to; None: its own,
                without gradient, for a trunk that learns from this would have its frames drawn
                onto those that follow, with no need of a change.

        Returns:
            The later frame's `target`.
        """
        trunk = None if trunk_earlier is None else (trunk_earlier,)
        begun = self.target(earlier, trunk_earlier).detach() if carried is None else carried
        return begun + self.dynamics.change(earlier, vectors, trunk)

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
