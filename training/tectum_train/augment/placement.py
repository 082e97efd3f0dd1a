"""Where a picture sits in its view: shifted, zoomed, cropped, mirrored; one resampling for all.

The matrix that moves the pixels also moves what the robot's camera says of itself, so that pixels
and camera state stay of one world.

Letters: B samples, F frames of each, H×W pixels of a frame, S side of the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from kornia.geometry.transform import warp_affine
from torch import Tensor

from tectum_train.augment.draws import Draws

__all__ = ["Placement"]


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

    def mirrored(self, which: Tensor) -> Self:
        """Those samples bool[B] with left and right exchanged."""
        sign = torch.where(which, -1.0, 1.0).to(self.scale.dtype)
        scale, offset = self.scale.clone(), self.offset.clone()
        scale[:, 0] *= sign
        offset[:, 0] = torch.where(which, self.side - 1 - offset[:, 0], offset[:, 0])
        return type(self)(scale, offset, self.side)

    def applied(self, frames: Tensor) -> Tensor:
        """float[B, F, 3, H, W] to float[B, F, 3, S, S]; what comes in at the border repeats it."""
        batch, each, _, height, width = frames.shape
        same = torch.allclose(self.scale, torch.ones_like(self.scale))
        if same and not bool(self.offset.any()) and height == width == self.side:
            return frames
        matrix = torch.zeros(batch, 2, 3)
        matrix[:, 0, 0], matrix[:, 1, 1] = self.scale[:, 0].float(), self.scale[:, 1].float()
        matrix[:, :, 2] = self.offset.float()
        matrix = matrix.to(frames.device).repeat_interleave(each, dim=0)
        moved = warp_affine(
            frames.flatten(0, 1), matrix, (self.side, self.side), padding_mode="border"
        )
        return moved.view(batch, each, 3, self.side, self.side)

    def intrinsics(self, source: Tensor) -> Tensor:
        """A pinhole's (fx, fy, cx, cy) behind the placement, float[B, …, 4] either way.

        Args:
            source: in pixels of the frames that are placed, counted from the first pixel's middle.
        """
        spread = (len(self.scale), *(1,) * (source.dim() - 2), 2)
        scale, offset = self.scale.view(spread), self.offset.view(spread)
        focal, centre = source[..., :2] * scale, source[..., 2:] * scale + offset
        return torch.cat([focal, centre], dim=-1).to(source.dtype)
