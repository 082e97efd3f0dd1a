"""Random views of pictures: where they sit, how large, in which colours; batched, replayable.

One draw for all frames of a sample: what moves between them is the world, not the
augmentation. The draws are a pure function of the seed.

Letters: B batch, F frames of a sample, S side.
"""

from __future__ import annotations

import threading

import torch
from kornia.augmentation import ColorJiggle, RandomAffine, RandomGrayscale, VideoSequential
from torch import Tensor

from tectum_train.recipe import AugmentationConfig

__all__ = ["Augmentation", "global_generator"]

global_generator = threading.Lock()
"""Held by whoever seeds torch's global generator and draws from it: kornia and vector quantisation
know no other, batches are made on a thread, and the generator is one for the whole process."""


class Augmentation:
    """Moved, zoomed, in other colours or none.

    Args:
        side: S, pixels.
        config: how far each goes; at zero it is left out.
    """

    def __init__(self, side: int, config: AugmentationConfig) -> None:
        steps: list[torch.nn.Module] = []
        if config.shift or config.zoom:
            share, zoom = config.shift / side, config.zoom
            steps.append(
                RandomAffine(
                    0.0,
                    translate=(share, share),
                    scale=(1 - zoom, 1 + zoom),
                    padding_mode="border",
                    p=1.0,
                )
            )
        if config.colour or config.hue:
            strength = config.colour
            steps.append(ColorJiggle(strength, strength, strength, config.hue, p=1.0))
        if config.grey:
            steps.append(RandomGrayscale(p=config.grey))
        self._apply = (
            VideoSequential(*steps, data_format="BTCHW", same_on_frame=True) if steps else None
        )

    def __call__(self, frames: Tensor, seed: int) -> Tensor:
        """Augment samples.

        Args:
            frames: uint8[B, F, 3, S, S].
            seed: of the draws; equal seeds give equal pixels.

        Returns:
            uint8[B, F, 3, S, S].
        """
        if self._apply is None:
            return frames
        values = frames.float() / 255
        with global_generator, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = self._apply.forward_parameters(values.shape)
        changed: Tensor = self._apply(values, params=drawn)
        return (changed * 255).round().clamp(0, 255).to(torch.uint8)
