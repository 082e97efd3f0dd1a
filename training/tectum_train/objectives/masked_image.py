"""MAE: encode what is visible, predict the pixels of what is not; with words in view if wanted.

Letters: B batch, N patches, K visible ones, X numbers in a patch.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from tectum_core.masks import visible_indices
from tectum_core.model import PerceptionModel, patchify
from tectum_train.distributed import all_sum
from tectum_train.losses.masked import hidden_patches
from tectum_train.masking import MaskConfig, RandomMask, needs_change
from tectum_train.objectives.base import Averaged, Outcome, PartSettings
from tectum_train.objectives.batch import Batch, Reads
from tectum_train.objectives.hiding import Hiding

__all__ = ["MaskedImage", "MaskedImageConfig"]


class MaskedImageConfig(PartSettings):
    """Masked image modelling on pixels."""

    kind: Literal["masked_image"] = "masked_image"
    """Discriminator."""
    mask: MaskConfig = RandomMask()
    """What is hidden."""
    text_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How often the decoder is shown the instruction, if it can read one."""
    statistics_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of predicting each patch's mean and spread, for painting without peeking."""

    @property
    def reads(self) -> Reads:
        """The later frame too if the mask goes by what changes."""
        return Reads.LATER if needs_change(self.mask) else Reads.FRAME


class MaskedImage(Averaged):
    """Mean squared error on hidden patches, normalised per patch.

    Source: MAE (arXiv:2111.06377); given text: Voltron's V-Cond (arXiv:2302.12766).
    """

    name = "masked_image"

    def __init__(self, config: MaskedImageConfig, model: PerceptionModel) -> None:
        super().__init__()
        if model.pixel_decoder is None:
            raise ValueError("masked_image needs model.pixel_decoder")
        self.config = config
        self.model = model
        self.hiding = Hiding(config.mask, model.vision)

    def counted(self, batch: Batch) -> Tensor:
        """Pictures, of which each hides equally many patches."""
        return torch.tensor(self.config.used(batch), device=batch.earlier.device)

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and `relative`: the error as a share of predicting zero."""
        decoder, vision = self.model.pixel_decoder, self.model.vision
        if decoder is None:
            raise ValueError("masked_image needs model.pixel_decoder")
        used = self.config.used(batch)
        pixels = batch.earlier[:used]
        hidden = self.hiding(batch, self.name, pixels, decoder.config.mask_ratio)
        keep = visible_indices(hidden)
        text = seen = None
        if decoder.config.text_context:
            shown = torch.rand((), generator=batch.generator).item() < self.config.text_share
            if shown:
                text, seen = batch.text(self.model).tokens[:used], batch.ids_seen[:used]
        said = decoder(vision(pixels, keep).tokens, keep, text, seen)
        target = decoder.target(patchify(pixels, vision.config.patch_size))
        masked = hidden_patches(said.values, target.values, hidden)
        zero = all_sum(target.values.square().mean(dim=-1)[hidden].mean()).clamp(min=1e-6)
        loss = masked
        if said.normalised:
            mean = hidden_patches(said.mean, target.mean, hidden)
            spread = hidden_patches(said.log_spread, target.log_spread, hidden)
            loss = masked + self.config.statistics_weight * (mean + spread)
        metrics = {"masked": masked.detach(), "relative": all_sum(masked) / zero}
        return Outcome(loss, metrics, divisors={"relative": zero})

    def after_step(self) -> None:
        """Let the teacher of its masks follow."""
        self.hiding.follow(self.model.vision)
