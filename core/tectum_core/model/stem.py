"""How pixels become patch tokens: one linear map of each patch, or a few convolutions first.

Letters: B batch, H×W pixels, P patch side, g patches along a side, N patches, D width, C channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.architecture import StemConfig

__all__ = ["ConvolutionStem"]


class ConvolutionStem(nn.Module):
    """Stages of a 3×3 convolution of stride 2 and residual blocks, until a pixel is a patch.

    Small models from scratch learn objects in far fewer pictures than with one linear map.
    Hidden patches are blanked before the first convolution, so nothing of them leaks into
    their neighbours.

    Source: arXiv:2106.14881; pre-activation residual blocks: arXiv:1603.05027, normalised in
    groups: arXiv:1803.08494; blanking, as masked convolutions: arXiv:2205.03892.

    Args:
        config: P is 2 to the power of its number of widths.
        width: D.
        norm_eps: of the norms.
    """

    def __init__(self, config: StemConfig, width: int, norm_eps: float) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=2, padding=1),
                    *(_Block(after, config.groups, norm_eps) for _ in range(config.blocks)),
                    nn.GroupNorm(config.groups, after, eps=norm_eps),
                    nn.GELU(),
                )
                for before, after in pairwise((3, *config.widths))
            )
        )
        self.project = nn.Linear(config.widths[-1], width)

    def forward(self, pixels: Tensor, shown: Tensor | None) -> Tensor:
        """Embed pictures.

        Args:
            pixels: float[B, 3, H, W], normalised; P divides H and W.
            shown: bool[B, N], which patches may be seen; None: all.

        Returns:
            float[B, N, D]; what stands at hidden patches says nothing of their pixels.

        Raises:
            ValueError: P does not divide H and W.
        """
        height, width = pixels.shape[2:]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"{height}×{width} pixels cannot be cut into patches of {self.patch}×{self.patch}"
            )
        x = pixels if shown is None else self._blanked(pixels, shown)
        x = self.stages(x.contiguous(memory_format=torch.channels_last))
        return self.project(x.permute(0, 2, 3, 1).flatten(1, 2))

    def _blanked(self, pixels: Tensor, shown: Tensor) -> Tensor:
        """Zero, the normalised grey, wherever a patch is hidden."""
        rows, columns = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        factor = shown.to(pixels.dtype).view(-1, 1, rows, columns)
        return pixels * F.interpolate(factor, scale_factor=float(self.patch), mode="nearest")


class _Block(nn.Module):
    """x plus two 3×3 convolutions, each after a norm and a GELU: float[B, C, h, w] to the same."""

    def __init__(self, channels: int, groups: int, norm_eps: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (
                    nn.GroupNorm(groups, channels, eps=norm_eps),
                    nn.GELU(),
                    nn.Conv2d(channels, channels, 3, padding=1),
                )
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)
