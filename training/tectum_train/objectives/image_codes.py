"""Codes of pictures: name each patch by one of a few, so that the picture can be painted again.

Letters: B batch, N patches, X numbers in a patch, E length of a code's vector, K codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from tectum_core.model import PerceptionModel, patchify
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.distributed import all_sum, interleaved
from tectum_train.image_tokenizer import FILE, CodeShape, ImageTokenizer, write_image_tokenizer
from tectum_train.losses.codes import (
    code_uses,
    commitment,
    painting_error,
    perplexity,
    straight_through,
    usage,
)
from tectum_train.losses.precision import sum_dtype
from tectum_train.objectives.base import Averaged, Outcome, PartSettings, Sums
from tectum_train.objectives.batch import Batch

__all__ = ["ImageCodes", "ImageCodesConfig"]


class ImageCodesConfig(PartSettings, CodeShape):
    """A vector-quantised autoencoder, whose encoder is the trunk."""

    kind: Literal["image_codes"] = "image_codes"
    """Discriminator."""
    commitment: Annotated[float, Field(ge=0)] = 0.25
    """Weight of keeping the trunk's vectors near their codes."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Of the codebook's moving averages."""
    restart_below: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """A code that is used less than this share of what each would be if all were used alike (moving
    average) is drawn anew from the batch."""

    @property
    def shape(self) -> CodeShape:
        """What the file of the tokenizer says of its codes."""
        return CodeShape(codes=self.codes, code_width=self.code_width, decoder=self.decoder)


class ImageCodes(Averaged):
    """Mean squared error of the pixels painted from codes, and the commitment to these.

    Source: VQ-VAE (arXiv:1711.00937), as a tokenizer for BEiT (arXiv:2106.08254).
    """

    name = "image_codes"

    def __init__(self, config: ImageCodesConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = ImageTokenizer(
            model.vision, config.shape, config.decay, config.restart_below
        )
        self._new: list[tuple[Tensor, Tensor]] = []

    def counted(self, batch: Batch) -> Tensor:
        """Pictures."""
        return torch.tensor(self.config.used(batch), device=batch.earlier.device)

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and whether the codebook lives.

        `relative`: error of the pixels ÷ that of the batch's mean patch of each place; `usage`:
        share of the codes that the batch uses; `perplexity`: how many it uses, as if alike.
        """
        tokenizer = self.tokenizer
        pixels = batch.earlier[: self.config.used(batch)]
        vectors = tokenizer.encode(pixels)
        codes = tokenizer.codebook.codes(vectors)
        quantised = tokenizer.codebook.of(codes)
        painted = tokenizer.decode(straight_through(vectors, quantised))
        true = patchify(pixels, tokenizer.encoder.config.patch_size)
        error = painting_error(painted, true)
        kept = commitment(vectors.flatten(0, 1), quantised.flatten(0, 1))
        self._new.append((vectors.detach(), codes))
        uses = (code_uses(codes, self.config.codes),)
        sums = {
            "relative": Sums(_relative, _painted(painted, true)),
            "usage": Sums(usage, uses),
            "perplexity": Sums(perplexity, uses),
        }
        metrics = {"pixels": error.detach(), "commitment": kept.detach()}
        return Outcome(error + self.config.commitment * kept, metrics, sums=sums)

    def after_step(self) -> None:
        """Let the codebook follow.

        Not before: what a step's vectors are quantised by is what the steps before left.
        """
        if self._new:
            pieces = len(self._new)
            vectors, codes = (
                interleaved(torch.cat(parts), pieces) for parts in zip(*self._new, strict=True)
            )
            self.tokenizer.codebook.learn(vectors, codes)
        self._new.clear()

    def leave(self, folder: Path, images: ImagePreprocessing) -> None:
        """Write the tokenizer, for recipes that learn its codes."""
        write_image_tokenizer(folder / FILE, self.tokenizer, images)


@torch.no_grad()
def _painted(painted: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_relative` is made of; float[b, N, X] each.

    Returns:
        Of all ranks' pictures: their number, their squared error, what they add up to,
        float64[N, X], and their squares; errors and squares as means over a picture.
    """
    dtype = sum_dtype(true.device)
    numbers = [
        true.new_tensor(len(true), dtype=dtype),
        *((one.square().sum(dtype=dtype) / true[0].numel()) for one in (painted - true, true)),
    ]
    number, wrong, squares = all_sum(torch.stack(numbers)).unbind()
    return number, wrong, all_sum(true.sum(dim=0, dtype=dtype)), squares


def _relative(number: Tensor, wrong: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """The error as a share of what the mean patch of each place would have."""
    return wrong / (squares - total.square().mean() / number).clamp(min=1e-6 * number)
