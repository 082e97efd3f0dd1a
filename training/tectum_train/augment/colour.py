"""Colours of a picture: brighter, flatter, paler, turned, grey, blurred, solarised, as drawn.

What each change does is torchvision's and PIL's definition, as SimCLR has them (arXiv:2002.05709,
appendix A), always in the order of this list; 0 to 1 is kept after each.

Letters: B samples, F frames of each, H×W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor

from tectum_train.augment.draws import Draws

__all__ = ["Colours"]

_BLUR = (0.1, 2.0)
"""Standard deviations of SimCLR's blur at 224 pixels; scaled with the picture's side."""


@dataclass(frozen=True, slots=True)
class Colours:
    """How far colours go, and how often."""

    strength: float
    """Brightness, contrast and saturation have factors from 1 − strength to 1 + strength: of the
    picture itself, of its distance from its mean grey, and of each pixel's from its own grey."""
    hue: float
    """Hues turned at most by so much of the whole circle."""
    share: float = 1.0
    """Of samples whose colours are changed at all."""
    grey: float = 0.0
    """Share of samples that lose their colours."""
    blur: float = 0.0
    """Share of samples that are blurred."""
    solarise: float = 0.0
    """Share of samples that are solarised: x becomes 1 − x where it is at least a half
    (arXiv:2006.07733, appendix B)."""
    saturation: float | None = None
    """How far saturation goes; None: as `strength`."""

    def applied(self, frames: Tensor, draws: Draws, view: str = "") -> Tensor:
        """All frames of a sample alike.

        Args:
            frames: float[B, F, 3, H, W], 0 to 1.
            draws: of the samples.
            view: by another name the same samples come out otherwise.

        Returns:
            float[B, F, 3, H, W], 0 to 1.
        """
        frames = self._jittered(frames, draws, view)
        if self.grey:
            flat = rgb_to_grayscale(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
            frames = torch.where(
                _spread(draws.chosen(f"grey{view}", self.grey), frames), flat, frames
            )
        if self.blur:
            frames = self._blurred(frames, draws, view)
        if self.solarise:
            chosen = _spread(draws.chosen(f"solarise{view}", self.solarise), frames)
            frames = torch.where(chosen & (frames >= 0.5), 1 - frames, frames)
        return frames

    def _jittered(self, frames: Tensor, draws: Draws, view: str) -> Tensor:
        paler = self.strength if self.saturation is None else self.saturation
        if not (self.strength or self.hue or paler):
            return frames
        each, flat = frames.shape[1], frames.flatten(0, 1)
        drawn = (2 * draws.uniform(f"colour{view}", 4) - 1).float().to(frames.device)
        if self.strength or paler:
            reach = torch.tensor([self.strength, self.strength, paler]).to(drawn)
            factors = 1 + reach * drawn[:, :3].repeat_interleave(each, 0)
            brightness, contrast, saturation = factors.unbind(1)
            flat = adjust_brightness_accumulative(flat, brightness)
            flat = _contrasted(flat.view_as(frames), contrast[::each])
            flat = adjust_saturation_with_gray_subtraction(flat, saturation)
        if self.hue:
            turn = 2 * torch.pi * self.hue * drawn[:, 3].repeat_interleave(each)
            flat = adjust_hue(flat, turn)
        changed = flat.view_as(frames)
        if self.share >= 1:
            return changed
        return torch.where(
            _spread(draws.chosen(f"jitter{view}", self.share), frames), changed, frames
        )

    def _blurred(self, frames: Tensor, draws: Draws, view: str) -> Tensor:
        side, each = frames.shape[-1], frames.shape[1]
        sigma = draws.between(f"sigma{view}", *_BLUR).float().to(frames.device) * side / 224
        size = max(3, side // 20 * 2 + 1)  # a tenth of the side, and odd
        sigma = sigma.repeat_interleave(each, 0).expand(-1, 2).clamp(min=1e-2)
        blurred = gaussian_blur2d(frames.flatten(0, 1), (size, size), sigma).view_as(frames)
        return torch.where(_spread(draws.chosen(f"blur{view}", self.blur), frames), blurred, frames)


def _contrasted(frames: Tensor, factors: Tensor) -> Tensor:
    """Contrast about the mean grey of all of a sample's frames: [B·F, 3, H, W] of [B, F, 3, H, W].

    About each frame's own, what comes into view would change all that stands still.
    """
    tall = frames.transpose(1, 2).flatten(2, 3)
    changed = adjust_contrast_with_mean_subtraction(tall, factors)
    return changed.unflatten(2, (frames.shape[1], -1)).transpose(1, 2).flatten(0, 1)


def _spread(which: Tensor, frames: Tensor) -> Tensor:
    """bool[B] over all of a sample's numbers."""
    return which.to(frames.device).view(-1, 1, 1, 1, 1)
