"""Inverse and forward dynamics, each in two families: transformers over patches, convolutions.

Inverse dynamics reads two frames and says what changed; forward dynamics paints the change
from the earlier frame and what was said. What is said passes a bottleneck in between
that is not this room's business.

Letters: B batch, s side of the frames, N patches, X numbers in a patch, D width, C tokens
said, E width of one of them at the bottleneck's far side, F features that a frame gives.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import ConvolutionDynamicsConfig, TransformerDynamicsConfig
from tectum_core.model.initial import small_normal
from tectum_core.model.transformer import Transformer
from tectum_core.model.vision import patchify, unpatchify

__all__ = ["ConvolutionDynamics", "TransformerDynamics"]

_GROUPS = 8


class TransformerDynamics(nn.Module):
    """One transformer each way.

    Source: LAPA (arXiv:2410.11758).
    """

    def __init__(
        self,
        config: TransformerDynamicsConfig,
        side: int,
        trunk_width: int,
        tokens: int,
        code_width: int,
        target: Literal["pixels", "latents"] = "pixels",
    ) -> None:
        super().__init__()
        self.config = config
        self.width = config.transformer.width
        self.tokens = tokens
        self.target = target
        values = 3 * config.patch_size**2
        features = values if config.source == "pixels" else trunk_width
        count = (side // config.patch_size) ** 2
        self.positions = small_normal(1, count, self.width)
        # One token for a patch of both frames: what moved is compared in place.
        self.embed_pair = nn.Linear(2 * features, self.width)
        self.queries = small_normal(1, tokens, self.width)
        self.inverse = Transformer(config.transformer)
        self.inverse_norm = nn.LayerNorm(self.width, eps=config.transformer.norm_eps)
        self.embed_earlier = nn.Linear(features, self.width)
        self.embed_code = nn.Linear(code_width, self.width)
        self.forward_dynamics = Transformer(config.transformer)
        self.forward_norm = nn.LayerNorm(self.width, eps=config.transformer.norm_eps)
        self.paint = nn.Linear(self.width, values if target == "pixels" else trunk_width)

    def say(self, earlier: Tensor, later: Tensor, trunk: tuple[Tensor, Tensor] | None) -> Tensor:
        """What changed.

        Args:
            earlier, later: float[B, 3, s, s].
            trunk: both frames' trunk tokens, float[B, N, F] each; required if source is "trunk".

        Returns:
            float[B, C, D].
        """
        pair = (self._features(earlier, trunk, 0), self._features(later, trunk, 1))
        x = self.embed_pair(torch.cat(pair, dim=-1)) + self.positions
        queries = self.queries.expand(x.shape[0], -1, -1).to(x.dtype)
        x = self.inverse(torch.cat([queries, x], dim=1))
        return self.inverse_norm(x[:, : self.tokens])

    def change(self, earlier: Tensor, codes: Tensor, trunk: tuple[Tensor, ...] | None) -> Tensor:
        """The change to paint.

        Args:
            earlier: float[B, 3, s, s].
            codes: float[B, C, E].
            trunk: the earlier frame's trunk tokens, float[B, N, F], as the first; else None.

        Returns:
            float[B, 3, s, s]; float[B, N, F] where latents are predicted.
        """
        x = self.embed_earlier(self._features(earlier, trunk, 0)) + self.positions
        said = self.embed_code(codes)
        x = self.forward_dynamics(torch.cat([said, x], dim=1))[:, said.shape[1] :]
        patches: Tensor = self.paint(self.forward_norm(x))
        if self.target == "latents":
            return patches
        return unpatchify(patches, self.config.patch_size, 1, 1).squeeze(2)

    def _features(self, frame: Tensor, trunk: tuple[Tensor, ...] | None, place: int) -> Tensor:
        if self.config.source == "pixels":
            return patchify(frame, self.config.patch_size)
        if trunk is None:
            raise ValueError("these dynamics read the trunk's tokens, and none were given")
        return trunk[place]


class ConvolutionDynamics(nn.Module):
    """A convolutional encoder of both frames, and a U-Net of the earlier one.

    What was said scales and shifts every level of the U-Net (FiLM).

    Source: LAPO (arXiv:2312.10812); FiLM: arXiv:1709.07871.
    """

    def __init__(
        self, config: ConvolutionDynamicsConfig, side: int, tokens: int, code_width: int
    ) -> None:
        super().__init__()
        widths = config.widths
        self.width = widths[-1]
        self.tokens = tokens
        smallest = side // 2 ** (len(widths) - 1)
        levels = list(pairwise(widths))
        said = tokens * code_width
        self.inverse = nn.Sequential(
            _Level(6, widths[0], 1),
            *(_Level(a, b, 2) for a, b in levels),
            _Level(widths[-1], widths[-1], 2),
        )
        inner = ((smallest + 1) // 2) ** 2 * widths[-1]
        self.inverse_head = nn.Linear(inner, tokens * widths[-1])
        self.down = nn.ModuleList(
            [_Level(3, widths[0], 1, said), *(_Level(a, b, 2, said) for a, b in levels)]
        )
        self.up = nn.ModuleList(_Level(a + b, a, 1, said) for a, b in reversed(levels))
        self.paint = nn.Conv2d(widths[0], 3, 3, padding=1)

    def say(self, earlier: Tensor, later: Tensor, _: tuple[Tensor, Tensor] | None) -> Tensor:
        """What changed; as TransformerDynamics.say, the trunk is not read."""
        x = self.inverse(torch.cat([earlier, later], dim=1))
        return self.inverse_head(x.flatten(1)).view(-1, self.tokens, self.width)

    def change(self, earlier: Tensor, codes: Tensor, _: tuple[Tensor, ...] | None) -> Tensor:
        """The change to paint; as TransformerDynamics.change, the trunk is not read."""
        said = codes.flatten(1)
        x, skipped = earlier, []
        for level in self.down:
            x = level(x, said)
            skipped.append(x)
        for level, skip in zip(self.up, reversed(skipped[:-1]), strict=True):
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0), skip], dim=1), said)
        return self.paint(x)


class _Level(nn.Module):
    """Two convolutions at one resolution; what was said scales and shifts in between."""

    def __init__(self, inward: int, outward: int, stride: int, said: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(inward, outward, 3, stride, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, outward)
        self.film = nn.Linear(said, 2 * outward) if said else None
        self.second = nn.Conv2d(outward, outward, 3, padding=1)

    def forward(self, x: Tensor, said: Tensor | None = None) -> Tensor:
        """float[B, inward, h, w] to float[B, outward, h/stride, w/stride]."""
        x = self.norm(self.first(x))
        if self.film is not None and said is not None:
            scale, shift = self.film(said)[:, :, None, None].chunk(2, dim=1)
            x = x * (1 + scale) + shift
        x = F.gelu(x)
        return x + self.second(x)
