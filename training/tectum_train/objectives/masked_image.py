"""MAE: encode what is visible, predict the pixels of what is not.

Letters: B batch, N patches, K visible ones, X numbers in a patch.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from tectum_core.masks import random_mask, visible_indices
from tectum_core.model import PerceptionModel, patchify
from tectum_train.objectives.base import Objective, Outcome, PartSettings
from tectum_train.objectives.batch import Batch

__all__ = ["MaskedImage", "MaskedImageConfig"]


class MaskedImageConfig(PartSettings):
    """Masked image modelling on pixels."""

    kind: Literal["masked_image"] = "masked_image"
    """Discriminator."""
    text_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How often the decoder is shown the instruction, if it can read one."""
    statistics_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of predicting each patch's mean and spread, for painting without peeking."""


class MaskedImage(Objective):
    """Mean squared error on hidden patches, normalised per patch.

    Source: MAE (arXiv:2111.06377).
    """

    name = "masked_image"

    def __init__(self, config: MaskedImageConfig, model: PerceptionModel) -> None:
        super().__init__()
        if model.pixel_decoder is None:
            raise ValueError("masked_image needs model.pixel_decoder")
        self.config = config
        self.model = model

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and `relative`: the error as a share of predicting zero."""
        decoder, vision = self.model.pixel_decoder, self.model.vision
        if decoder is None:
            raise ValueError("masked_image needs model.pixel_decoder")
        count, ratio = vision.config.patches, decoder.config.mask_ratio
        used = self.config.used(batch)
        pixels = batch.earlier[:used]
        masks = [random_mask(count, ratio, batch.generator) for _ in range(used)]
        hidden = torch.stack(masks).to(pixels.device)
        keep = visible_indices(hidden)
        text = seen = None
        if decoder.config.text_context:
            shown = torch.rand((), generator=batch.generator).item() < self.config.text_share
            if shown:
                text, seen = batch.text(self.model).tokens[:used], batch.ids_seen[:used]
        prediction = decoder(vision(pixels, keep).tokens, keep, text, seen)
        target = decoder.target(patchify(pixels, vision.config.patch_size))
        error = (prediction.values.float() - target.values).square().mean(dim=-1)
        masked = error[hidden].mean()
        zero = target.values.square().mean(dim=-1)[hidden].mean()
        loss = masked
        if prediction.normalised:
            mean = F.mse_loss(prediction.mean.float()[hidden], target.mean[hidden])
            spread = F.mse_loss(prediction.log_spread.float()[hidden], target.log_spread[hidden])
            loss = masked + self.config.statistics_weight * (mean + spread)
        return Outcome(loss, {"masked": masked.detach(), "relative": (masked / zero).detach()})
