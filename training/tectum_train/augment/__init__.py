"""Random views of pictures: where they sit, how large, in which colours; batched, replayable.

Every draw is a pure function of (seed, epoch, index): see `draws`.

Letters: B samples, F frames of each, S the model's side, V small views of side s.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_train.augment.colour import Colours
from tectum_train.augment.draws import Draws
from tectum_train.augment.placement import Placement, crop_moments
from tectum_train.augment.settings import (
    AugmentationConfig,
    CropConfig,
    FlipConfig,
    OtherViewConfig,
    ViewsConfig,
)

__all__ = [
    "AugmentationConfig",
    "Colours",
    "CropConfig",
    "Draws",
    "FlipConfig",
    "Frames",
    "OtherViewConfig",
    "Placement",
    "Views",
    "ViewsConfig",
]

_Numbers = NDArray[np.float64]


class Frames:
    """Frames of one episode, all changed alike: what moves between them is the world.

    Args:
        side: S, pixels.
        config: how far each change goes; at zero it is left out.
    """

    def __init__(self, side: int, config: AugmentationConfig) -> None:
        self._side, self._config = side, config
        self._colours = Colours(config.colour, config.hue, grey=config.grey, blur=config.blur)

    def placement(self, draws: Draws) -> Placement:
        """Where the samples' frames sit; moves the camera's state too."""
        side, crop = self._side, self._config.crop
        placed = Placement.moved(draws, side, self._config.shift, self._config.zoom)
        if crop is not None:
            part = Placement.cropped(draws, "crop", side, side, crop.area, crop.aspect)
            placed = part.then(placed)
        if self._config.flip is None:
            return placed
        return placed.mirrored(draws.chosen("flip", self._config.flip.share))

    @property
    def moves(self) -> bool:
        """Whether `placement` ever leaves a frame elsewhere than it was."""
        config = self._config
        return bool(config.shift or config.zoom or config.crop or config.flip)

    @property
    def mirror(self) -> Placement:
        """Of one sample's frames: mirrored, and otherwise as they are."""
        scale = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
        return Placement(scale, (self._side - 1) * (scale < 0).double(), self._side)

    def camera_moments(self, mean: _Numbers, variance: _Numbers) -> tuple[_Numbers, _Numbers]:
        """What mean and variance of a pinhole's numbers become behind `placement`.

        Args:
            mean, variance: float64[4] each, of (fx, fy, cx, cy) in pixels of the frames.
        """
        place = np.array([0.0, 0.0, 1.0, 1.0])  # focal lengths are none: they scale about 0
        mean, variance = self.moved_moments(mean, variance, (self._side - 1) / 2 * place, place)
        turned = self.mirror.intrinsics(torch.from_numpy(mean)[None])[0].numpy()
        return self.mirrored_moments((mean, variance), (turned, variance))

    def moved_moments(
        self, mean: _Numbers, variance: _Numbers, middle: _Numbers, pixel: _Numbers
    ) -> tuple[_Numbers, _Numbers]:
        """What mean and variance of numbers in the picture become behind an unmirrored `placement`.

        Args:
            mean, variance: float64[n] each, in any units.
            middle: float64[n], where the middle of the frames is in these units.
            pixel: float64[n], how large one of their pixels is.

        Zoom and shift are uniform about 1 and 0, so their variances are a third of their squares. A
        crop is as likely on either side of the middle, so that it moves no mean away from there.
        """
        away, zoomed, crop = mean - middle, self._config.zoom**2 / 3, self._config.crop
        first, second = (1.0, 1.0) if crop is None else crop_moments(crop.area, crop.aspect)
        wider = zoomed * second + (second - first**2)  # the scale's own variance
        # A crop's middle is uniform within what it leaves: (scale − 1) · side, if seen in the view.
        gone = (1 + zoomed) * (second - 2 * first + 1) * self._side**2 / 12
        gone += self._config.shift**2 / 3
        spread = (1 + zoomed) * second * variance + wider * away**2 + gone * pixel**2
        return mean + (first - 1) * away, spread

    def mirrored_moments(
        self, plain: tuple[_Numbers, _Numbers], turned: tuple[_Numbers, _Numbers]
    ) -> tuple[_Numbers, _Numbers]:
        """Mean and variance, float64[n] each, of numbers that a share of samples has mirrored.

        Args:
            plain: mean and variance without a mirror.
            turned: in it.
        """
        share = 0.0 if self._config.flip is None else self._config.flip.share
        between = turned[0] - plain[0]
        spread = plain[1] + share * (turned[1] - plain[1]) + share * (1 - share) * between**2
        return plain[0] + share * between, spread

    def __call__(self, frames: Tensor, draws: Draws, view: str = "") -> Tensor:
        """uint8[B, F, 3, S, S] to the same; by another view's name in other colours."""
        placed = self.placement(draws).applied(_unit(frames))
        return _bytes(self._colours.applied(placed, draws, view))


class Views:
    """Views of single pictures, each changed by itself: what they share is what is seen.

    Args:
        side: S of whole views, pixels.
        config: how far they differ.
    """

    def __init__(self, side: int, config: ViewsConfig) -> None:
        self._side, self._config = side, config
        first, small = (config.blur, config.solarise), config.changed_as(config.small)
        self._whole = (self._colours(first), self._colours(config.changed_as(config.second)))
        self._small = self._colours(small)

    def _colours(self, shares: tuple[float, float]) -> Colours:
        """Of views that are blurred and solarised so often."""
        config, (blur, solarise) = self._config, shares
        return Colours(
            config.colour, config.hue, config.colour_share, config.grey, blur, solarise,
            config.saturation,
        )  # fmt: skip

    def whole(self, pictures: Tensor, draws: Draws) -> Tensor:
        """Two whole views: uint8[B, 3, S, S] to uint8[B, 2, 3, S, S]."""
        config = self._config
        views = [
            self._view(pictures, draws, f"view {number}", self._side, config.area, colours)
            for number, colours in enumerate(self._whole)
        ]
        return torch.stack(views, dim=1)

    def small(self, pictures: Tensor, draws: Draws) -> Tensor:
        """`crops` small views: uint8[B, 3, S, S] to uint8[B, V, 3, s, s]."""
        config = self._config
        views = [
            self._view(
                pictures, draws, f"crop {number}", config.crop_size, config.crop_area, self._small
            )
            for number in range(config.crops)
        ]
        none = pictures.new_empty(len(pictures), 0, 3, config.crop_size, config.crop_size)
        return torch.stack(views, dim=1) if views else none

    def _view(
        self,
        pictures: Tensor,
        draws: Draws,
        name: str,
        side: int,
        area: tuple[float, float],
        colours: Colours,
    ) -> Tensor:
        config = self._config
        placed = Placement.cropped(draws, name, pictures.shape[-1], side, area, config.aspect)
        if config.flip:
            placed = placed.mirrored(draws.chosen(f"flip {name}", config.flip))
        one = placed.applied(_unit(pictures[:, None]))
        return _bytes(colours.applied(one, draws, f" {name}"))[:, 0]


def _unit(frames: Tensor) -> Tensor:
    return frames.float() / 255


def _bytes(frames: Tensor) -> Tensor:
    return (frames * 255).round().clamp(0, 255).to(torch.uint8)
