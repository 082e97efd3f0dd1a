"""Latent actions without labels: name the change so that the later frame can be predicted.

Letters: B batch, s side of the module's frames, C codes, E code width, k decoded steps,
A numbers in an action.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from tectum_core.model import PerceptionModel
from tectum_train.distributed import all_sum, mean_over_ranks, world_size
from tectum_train.objectives.base import Objective, Outcome, PartSettings
from tectum_train.objectives.batch import Batch, Reads, given

__all__ = ["LatentAction", "LatentActionObjectiveConfig"]


class LatentActionObjectiveConfig(PartSettings):
    """Inverse and forward dynamics through a bottleneck."""

    kind: Literal["latent_action"] = "latent_action"
    """Discriminator."""
    decode_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of decoding the robot's own actions from latents that it cannot change; 0: the run
    sees no action labels."""

    @property
    def reads(self) -> Reads:
        """The later frame too."""
        return Reads.LATER


class LatentAction(Objective):
    """Mean squared error of the predicted later frame, as a share of copying the earlier one.

    The action decoder reads detached latents and features: labels never shape them.

    Source: LAPO (arXiv:2312.10812), LAPA (arXiv:2410.11758).
    """

    name = "latent_action"

    def __init__(self, config: LatentActionObjectiveConfig, model: PerceptionModel) -> None:
        super().__init__()
        if model.latent_action is None:
            raise ValueError("latent_action needs model.latent_action")
        if config.decode_weight and model.latent_action.action_decoder is None:
            raise ValueError("decode_weight needs model.latent_action.decoded_steps")
        self.config = config
        self.model = model
        self.copy_error: Tensor
        # What copying costs, averaged over steps: the loss's unit.
        self.register_buffer("copy_error", torch.zeros(()))

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and `relative`: the error as a share of copying, on this batch."""
        module = self.model.latent_action
        if module is None:
            raise ValueError("latent_action needs model.latent_action")
        used = self.config.used(batch)
        seen_later = given(batch.later, "later frames")[:used]
        earlier, later = module.frames(batch.earlier[:used]), module.frames(seen_later)
        trunk = None
        if module.config.reads_trunk:
            after = self.model.vision(seen_later).tokens
            trunk = (batch.image(self.model).tokens[:used], after)
        bottled = module.infer(earlier, later, trunk)
        predicted = module.predict(earlier, bottled.vectors, None if trunk is None else trunk[0])
        counted = batch.paired[:used].float()
        wrong = (predicted.float() - later).square().mean(dim=(1, 2, 3))
        error = mean_over_ranks(wrong, counted)
        with torch.no_grad():
            still = (earlier - later).square().mean(dim=(1, 2, 3))
            copying = all_sum(mean_over_ranks(still, counted)) / world_size()
            known = self.copy_error > 0
            self.copy_error.lerp_(copying, 0.01) if known else self.copy_error.copy_(copying)
        loss = error / self.copy_error.clamp(min=1e-6) + bottled.loss
        metrics = {"relative": (error / copying.clamp(min=1e-6)).detach()}
        if bottled.codes is not None:
            metrics["codes_used"] = torch.tensor(float(len(torch.unique(bottled.codes))))
        if self.config.decode_weight:
            pooled = batch.image(self.model).pooled[:used].detach()
            decoded = module.decode_actions(bottled.vectors.detach(), pooled)
            steps = decoded.shape[1]
            wrong = (decoded.float() - batch.actions[:used, :steps]).square().mean(dim=(1, 2))
            decoding = mean_over_ranks(wrong, counted)
            loss = loss + self.config.decode_weight * decoding
            metrics["decoding"] = decoding.detach()
        return Outcome(loss, metrics, 1.0)
