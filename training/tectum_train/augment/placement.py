"""Where a picture sits in its view: cropped, zoomed, shifted, mirrored; one resampling for all.

The map that moves the pixels also moves what the robot's camera says of itself, and numbers that
are places in the picture, so that pixels and numbers stay of one world.

Letters: B samples, F frames of each, H×W pixels of a frame, n pixels along one of its axes, S side
of the view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tectum_train.augment.draws import Draws

__all__ = ["Placement", "crop_moments"]

_PLACES = 1000
"""Midpoints along each of a crop's two draws, by which its moments are summed up."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One affine map for each sample."""

    scale: Tensor
    """float64[B, 2], along x and y; negative where mirrored."""
    offset: Tensor
    """float64[B, 2]: view = scale · source + offset, both counted from a pixel's middle."""
    side: int
    """S, pixels."""

    @classmethod
    def moved(cls, draws: Draws, side: int, shift: int, zoom: float) -> Self:
        """Shifted by at most so many pixels, and scaled by 1 − zoom to 1 + zoom about the middle.

        Source: random shifts, DrQ-v2 (arXiv:2107.09645).
        """
        scale = draws.between("zoom", 1 - zoom, 1 + zoom).expand(-1, 2)
        middle = (side - 1) / 2
        offset = middle * (1 - scale) + draws.between("shift", -shift, shift, 2)
        return cls(scale, offset, side)

    @classmethod
    def cropped(
        cls,
        draws: Draws,
        purpose: str,
        source: int,
        side: int,
        area: tuple[float, float],
        aspect: float = 4 / 3,
    ) -> Self:
        """A random part of a square picture, resized: `area` is its share, 1/aspect to aspect wide.

        Source: Inception crops (arXiv:1409.4842), as SimCLR and DINO draw them; a crop too wide for
        the picture is made as wide as that.
        """
        drawn = draws.uniform(purpose, 4)
        share = area[0] + (area[1] - area[0]) * drawn[:, 0]
        ratio = torch.exp((2 * drawn[:, 1] - 1) * torch.log(torch.tensor(aspect)))
        wide = torch.stack([(share * ratio).sqrt(), (share / ratio).sqrt()], dim=1).clamp(max=1.0)
        wide = wide * source
        first = drawn[:, 2:] * (source - wide)
        scale = side / wide
        return cls(scale, scale * (0.5 - first) - 0.5, side)

    def then(self, other: Self) -> Self:
        """What is placed so, and its view by the other."""
        return type(self)(
            other.scale * self.scale, other.scale * self.offset + other.offset, other.side
        )

    @property
    def flipped(self) -> Tensor:
        """bool[B], samples whose left and right are exchanged."""
        return self.scale[:, 0] < 0

    def mirrored(self, which: Tensor) -> Self:
        """Those samples bool[B] with left and right exchanged."""
        sign = torch.where(which, -1.0, 1.0).to(self.scale.dtype)
        scale, offset = self.scale.clone(), self.offset.clone()
        scale[:, 0] *= sign
        offset[:, 0] = torch.where(which, self.side - 1 - offset[:, 0], offset[:, 0])
        return type(self)(scale, offset, self.side)

    def applied(self, frames: Tensor) -> Tensor:
        """Resample frames, antialiased where they become smaller.

        What comes in at the border repeats it.

        Args:
            frames: float[B, F, 3, H, W].

        Returns:
            float[B, F, 3, S, S].
        """
        batch, each, _, height, width = frames.shape
        still = bool((self.scale == 1).all()) and not bool(self.offset.any())
        if still and height == width == self.side:
            return frames
        # Nothing turns, so rows and columns are resampled one after the other.
        across, down = (
            _weights(self.scale[:, axis], self.offset[:, axis], length, self.side).to(frames)
            for axis, length in enumerate((width, height))
        )
        rows = frames.reshape(batch, -1, width) @ across.transpose(1, 2)  # [B, F·3·H, S]
        placed = down[:, None] @ rows.view(batch, each * 3, height, self.side)
        return placed.view(batch, each, 3, self.side, self.side)

    def intrinsics(self, source: Tensor) -> Tensor:
        """A pinhole's (fx, fy, cx, cy) behind the placement, float[B, …, 4] either way.

        A mirrored picture is what a camera of positive focal lengths sees of the mirrored world.

        Args:
            source: in pixels of the frames that are placed, counted from the first pixel's middle.
        """
        scale, offset = self._beside(source)
        focal, centre = source[..., :2] * scale.abs(), source[..., 2:] * scale + offset
        return torch.cat([focal, centre], dim=-1).to(source.dtype)

    def places(self, source: Tensor, middle: Tensor, pixel: Tensor) -> Tensor:
        """Places (x, y) in frames as large as the view, behind the placement.

        Args:
            source: float[B, …, 2], in any unit.
            middle: float64[2], where the middle of the frames is in that unit.
            pixel: float64[2], how large one of their pixels is.

        Returns:
            float[B, …, 2] in that unit; exactly what it was where nothing moves.
        """
        scale, offset = self._beside(source)
        gone = offset - (self.side - 1) / 2 * (1 - scale)  # by the middle, in pixels
        return (scale * source + (1 - scale) * middle + gone * pixel).to(source.dtype)

    def _beside(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and offset so that they broadcast against [B, …, 2]."""
        spread = (len(self.scale), *(1,) * (source.dim() - 2), 2)
        return self.scale.view(spread), self.offset.view(spread)


def crop_moments(area: tuple[float, float], aspect: float) -> tuple[float, float]:
    """Mean and mean square of the scale along an axis of `Placement.cropped`, a whole view's size.

    Both axes have the same: wide parts are as likely as tall ones.
    """
    drawn = (np.arange(_PLACES) + 0.5) / _PLACES
    share = area[0] + (area[1] - area[0]) * drawn
    ratio = np.exp((2 * drawn - 1) * math.log(aspect))
    scale = 1 / np.minimum(np.sqrt(np.outer(share, ratio)), 1)
    return float(scale.mean()), float((scale**2).mean())


def _weights(scale: Tensor, offset: Tensor, length: int, side: int) -> Tensor:
    """How the pixels of one axis of the view are made of those of the source.

    Bilinear where the picture becomes larger; where smaller, the triangle is as wide as the pixels
    of the view are in the source, as `tectum_core.preprocess.resize` has it.

    Args:
        scale, offset: float64[B], of the axis.
        length: n of the source.
        side: S.

    Returns:
        float32[B, S, n]; all shares of one pixel sum to 1.
    """
    middle = (torch.arange(side, dtype=torch.float64) - offset[:, None]) / scale[:, None]
    reach = (1 / scale.abs()).clamp(min=1)[:, None, None]
    most = math.ceil(float(reach.max()))
    near = middle.floor()[:, :, None] + torch.arange(1 - most, most + 1, dtype=torch.float64)
    share = (1 - (near - middle[:, :, None]).abs() / reach).clamp(min=0)
    share = share / share.sum(dim=-1, keepdim=True)
    # Beyond the border lies its last pixel, again and again.
    place = near.clamp(0, length - 1).long()
    whole = torch.zeros(len(scale), side, length, dtype=torch.float64)
    return whole.scatter_add_(2, place, share).float()
