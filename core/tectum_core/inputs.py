"""What callers give, as tensors that a bundle's model reads: the same for every operation.

Letters: B batch, H×W source pixels, S the model's side, T frames, L text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.architecture import TextConfig
from tectum_core.bundle import Bundle
from tectum_core.outputs import Float32, Picture, Uint8Image
from tectum_core.preprocess import fits, fitted, kept, normalise, preprocess, resize_on
from tectum_core.tokenizer import EncodedText, Tokenizer

__all__ = ["CapabilityMissing", "Inputs"]


class CapabilityMissing(ValueError):
    """The bundle has no part for this, or one that was not trained; names the part."""


class Inputs:
    """A bundle's preprocessing, and its tokenizer, on a device."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self._bundle = bundle
        self._device = device
        self._beside = _beside(device)

    def fitted(self, pictures: Uint8Image) -> Tensor:
        """uint8[..., H, W, 3] to uint8[..., 3, S, S], which `pixels` or `clip_pixels` takes.

        It waits for nothing else that the device does, and is done on return.
        """
        if self._beside is None:
            return fitted(pictures, self._bundle.config.images, self._device)
        # Its memory is this stream's: who takes it reads back what comes of it before letting go.
        with torch.cuda.stream(self._beside):
            own = fitted(pictures, self._bundle.config.images, self._device)
        self._beside.synchronize()
        return own

    def pixels(self, images: Sequence[Picture]) -> Tensor:
        """Pictures uint8[H, W, 3] of any sizes to float32[B, 3, S, S]."""
        return preprocess(images, self._bundle.config.images, self._device)

    def clip_pixels(self, clips: Sequence[Picture]) -> Tensor:
        """Clips uint8[T, H, W, 3] to float32[B, 3, T, S, S]."""
        images = self._bundle.config.images
        resized = [
            clip
            if isinstance(clip, Tensor)
            else resize_on(
                torch.from_numpy(np.require(clip, requirements=["C", "W"])), images, self._device
            )
            for clip in clips
        ]
        return normalise(torch.stack(resized), images).transpose(1, 2)

    def picture_rows(self, pictures: Sequence[Picture]) -> list[Uint8Image | Tensor]:
        """Pictures or clips as what is launched takes them: uint8[(T,) S, S, 3] each.

        What has the model's size already stays where it is.
        """
        spec = self._bundle.config.images
        return [
            kept(picture, spec)
            if isinstance(picture, np.ndarray) and fits(picture.shape[-3], picture.shape[-2], spec)
            else (picture if isinstance(picture, Tensor) else self.fitted(picture)).movedim(-3, -1)
            for picture in pictures
        ]

    def text_rows(self, texts: Sequence[EncodedText]) -> list[NDArray[np.int64]]:
        """Texts likewise: int64[L + 1] each, its tokens padded and how many there are.

        Raises:
            CapabilityMissing: the model reads no text.
        """
        tokenizer, config = self._reader()
        padded = tokenizer.pad([text.ids for text in texts], config.max_tokens)
        counts = [len(text.ids) for text in texts]
        return [np.array([*row, count]) for row, count in zip(padded, counts, strict=True)]

    def encode(self, text: str) -> EncodedText:
        """A text's tokens as the model reads them.

        Raises:
            CapabilityMissing: it reads no text.
        """
        tokenizer, config = self._reader()
        return tokenizer.encode(text, config.max_tokens)

    def ids(self, encoded: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """int64[B, L] padded to the model's full length, and bool[B, L] without the padding.

        Always the full length: how long a neighbour is must not show.

        Raises:
            CapabilityMissing: the model reads no text.
        """
        tokenizer, config = self._reader()
        ids = torch.tensor(tokenizer.pad(encoded, config.max_tokens), device=self._device)
        lengths = torch.tensor([len(row) for row in encoded], device=self._device)
        return ids, torch.arange(config.max_tokens, device=self._device) < lengths[:, None]

    def tensor(self, values: Float32) -> Tensor:
        """Numbers as they are."""
        return torch.from_numpy(np.require(values, np.float32, ["C", "W"])).to(self._device)

    def _reader(self) -> tuple[Tokenizer, TextConfig]:
        tokenizer, config = self._bundle.tokenizer, self._bundle.config.model.text
        if tokenizer is None or config is None:
            raise CapabilityMissing("this model has no text path")
        return tokenizer, config


@cache  # of all bundles together: torch has 32 streams of a device, and gives them out in turns
def _beside(device: torch.device) -> torch.cuda.Stream | None:
    """A stream beside those that compute; None: the device has none."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None
