"""How pixels become patch tokens: one linear map of each patch, or a few convolutions first.

Letters: B batch, H×W pixels, P patch side, g patches along a side, N patches, K kept ones, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvolutionStem"]


class ConvolutionStem(nn.Module):
    """3×3 convolutions of stride 2, each halving the picture, until a pixel is a patch.

    Small models from scratch learn objects in far fewer pictures than with one linear map.
    Hidden patches are blanked before the first convolution, so nothing of them leaks into
    their neighbours.

    Source: arXiv:2106.14881; blanking, as masked convolutions: arXiv:2205.03892.

    Args:
        widths: channels of the convolutions; P is 2 to the power of their number.
        width: D.
        norm_eps: of the LayerNorms over channels.
    """

    def __init__(self, widths: Sequence[int], width: int, norm_eps: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise((3, *widths))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(b, eps=norm_eps) for b in widths)
        self.project = nn.Linear(widths[-1], width)

    def forward(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        """Embed pictures.

        Args:
            pixels: float[B, 3, H, W], normalised.
            keep: int64[B, K], which patches may be seen; None: all.

        Returns:
            float[B, N, D]; what stands at hidden patches says nothing of their pixels.
        """
        x = pixels if keep is None else self._blanked(pixels, keep)
        x = x.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.gelu(norm(convolution(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.project(x.permute(0, 2, 3, 1).flatten(1, 2))

    def _blanked(self, pixels: Tensor, keep: Tensor) -> Tensor:
        """Zero, the normalised grey, wherever a patch is hidden."""
        patch = 2 ** len(self.convolutions)
        rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
        shown = torch.zeros(len(pixels), rows * columns, dtype=pixels.dtype, device=pixels.device)
        shown = shown.scatter(1, keep, 1.0).view(-1, 1, rows, columns)
        return pixels * F.interpolate(shown, scale_factor=float(patch), mode="nearest")
