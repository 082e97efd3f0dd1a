"""Random views of pictures: small shifts and colour changes, batched, replayable.

One draw for all frames of a sample: what moves between them is the world, not the
augmentation. The draws are a pure function of the seed.

Letters: B batch, F frames of a sample, S side.
"""

from __future__ import annotations

import threading

import torch
from kornia.augmentation import ColorJiggle, RandomAffine, VideoSequential
from torch import Tensor

__all__ = ["Augmentation", "global_generator"]

global_generator = threading.Lock()
"""Held by whoever seeds torch's global generator and draws from it: kornia and vector quantisation
know no other, batches are made on a thread, and the generator is one for the whole process."""


class Augmentation:
    """Shifts and colours.

    Args:
        side: S, pixels.
        shift: at most so many pixels each way; what comes in at the border repeats it.
        colour: strength of brightness, contrast and saturation, and a quarter of it of hue.
    """

    def __init__(self, side: int, shift: int, colour: float) -> None:
        steps: list[torch.nn.Module] = []
        if shift:
            share = shift / side
            steps.append(RandomAffine(0.0, translate=(share, share), padding_mode="border", p=1.0))
        if colour:
            steps.append(ColorJiggle(colour, colour, colour, colour / 4, p=1.0))
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
        with global_generator, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed: Tensor = self._apply(frames.float() / 255)
        return (changed * 255).round().clamp(0, 255).to(torch.uint8)
