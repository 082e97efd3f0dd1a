"""Random views of pictures: where they sit, how large, in which colours; batched, replayable.

Every draw is a pure function of (seed, epoch, index): see `draws`.

Letters: B samples, F frames of each, S the model's side, s the side of a crop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tectum_train.augment.colour import Colours
from tectum_train.augment.draws import Draws
from tectum_train.augment.placement import Placement
from tectum_train.augment.settings import AugmentationConfig, FlipConfig, ViewsConfig

__all__ = [
    "AugmentationConfig",
    "Colours",
    "Draws",
    "FlipConfig",
    "Frames",
    "Placement",
    "Views",
    "ViewsConfig",
]


class Frames:
    """Frames of one episode, all changed alike: what moves between them is the world.

    Args:
        side: S, pixels.
        config: how far each change goes; at zero it is left out.
    """

    def __init__(self, side: int, config: AugmentationConfig) -> None:
        self._side, self._config = side, config
        self._colours = Colours(config.colour, config.hue, grey=config.grey)

    def placement(self, draws: Draws) -> Placement:
        """Where the samples' frames sit; moves the camera's state too."""
        placed = Placement.moved(draws, self._side, self._config.shift, self._config.zoom)
        if self._config.flip is None:
            return placed
        return placed.mirrored(draws.chosen("flip", self._config.flip.share))

    def flipped(self, draws: Draws) -> Tensor:
        """bool[B], samples whose left and right are exchanged."""
        flip = self._config.flip
        return draws.chosen("flip", 0.0 if flip is None else flip.share)

    def __call__(self, frames: Tensor, draws: Draws) -> Tensor:
        """uint8[B, F, 3, S, S] to the same."""
        return _bytes(self._colours.applied(self.placement(draws).applied(_unit(frames)), draws))


class Views:
    """Views of single pictures, each changed by itself: what they share is what is seen.

    Args:
        side: S of whole views, pixels.
        config: how far they differ.
    """

    def __init__(self, side: int, config: ViewsConfig) -> None:
        self._side, self._config = side, config
        self._colours = Colours(
            config.colour, config.hue, config.colour_share, config.grey, config.blur
        )

    def __call__(self, pictures: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """uint8[B, 3, S, S] to two whole views uint8[B, 2, 3, S, S] and uint8[B, n, 3, s, s]."""
        config = self._config
        whole = [
            self._view(pictures, draws, f"view {number}", self._side, config.area)
            for number in range(2)
        ]
        crops = [
            self._view(pictures, draws, f"crop {number}", config.crop_size, config.crop_area)
            for number in range(config.crops)
        ]
        none = pictures.new_empty(len(pictures), 0, 3, config.crop_size, config.crop_size)
        return torch.stack(whole, dim=1), torch.stack(crops, dim=1) if crops else none

    def _view(
        self, pictures: Tensor, draws: Draws, name: str, side: int, area: tuple[float, float]
    ) -> Tensor:
        config = self._config
        placed = Placement.cropped(draws, name, pictures.shape[-1], side, area, config.aspect)
        if config.flip:
            placed = placed.mirrored(draws.chosen(f"flip {name}", config.flip))
        one = placed.applied(_unit(pictures[:, None]))
        return _bytes(self._colours.applied(one, draws, f" {name}"))[:, 0]


def _unit(frames: Tensor) -> Tensor:
    return frames.float() / 255


def _bytes(frames: Tensor) -> Tensor:
    return (frames * 255).round().clamp(0, 255).to(torch.uint8)
