"""InfoNCE between images and instructions, aware that many frames share a task.

Letters: B batch, J joint width.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tectum_core.model import PerceptionModel
from tectum_train.objectives.base import Objective, ObjectiveSettings, Outcome
from tectum_train.objectives.batch import Batch

__all__ = ["ImageText", "ImageTextConfig", "multi_positive_info_nce"]

_MAX_LOG_SCALE = 4.605170185988092  # ln 100


class ImageTextConfig(ObjectiveSettings):
    """Contrast frames with instructions, both ways."""

    kind: Literal["image_text"] = "image_text"
    """Discriminator."""
    after: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an episode after which its frames count; 0: all. Tasks that undo each other begin as
    the other ends: an open drawer is the end of opening and the beginning of closing."""


class ImageText(Objective):
    """Cross-entropy over the batch's sentences, each direction; all of the same task are positives.

    Without that, frames of one task would be pushed apart as false negatives, and telling its
    paraphrases from each other could only be learnt by heart, episode by episode.

    Source: CLIP (arXiv:2103.00020); several positives: SupCon (arXiv:2004.11362), L_out.
    """

    name = "image_text"

    def __init__(self, config: ImageTextConfig, model: PerceptionModel) -> None:
        super().__init__()
        if model.joint is None:
            raise ValueError("image_text needs a joint space (model.joint)")
        self.config = config
        self.model = model

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and each frame's accuracy in finding a sentence of its own.

        Without a frame that counts the loss is 0, its gradients too, and there is no accuracy.
        """
        joint = self.model.joint
        if joint is None:
            raise ValueError("image_text needs a joint space (model.joint)")
        counted = batch.progress >= self.config.after
        pooled = batch.image(self.model).pooled[counted]
        words = batch.text(self.model).pooled[counted]
        # From here on float32: rounded unit vectors put the gradient off by percents at scale 100.
        with torch.autocast(pooled.device.type, enabled=False):
            image, text = joint.embed_image(pooled.float()), joint.embed_text(words.float())
            logits = joint.logits(image @ text.t())
            scale = joint.log_scale.detach().exp()
            if not len(logits):
                # Which frames a step draws is settled by the seed: an error would come again.
                return Outcome(logits.sum(), {"scale": scale})
            task = batch.task[counted]
            positive = task[:, None] == task[None, :]
            loss = multi_positive_info_nce(logits, positive)
        hit = positive.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean()
        return Outcome(loss, {"accuracy": hit.detach(), "scale": scale})

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the logit scale at most 100."""
        if self.model.joint is not None:
            self.model.joint.log_scale.clamp_(max=_MAX_LOG_SCALE)


def multi_positive_info_nce(logits: Tensor, positive: Tensor) -> Tensor:
    """Mean over both directions of the cross-entropy against all positives of a row.

    Args:
        logits: float32[B, B], rows images, columns texts.
        positive: bool[B, B], symmetric, True on the diagonal.

    Returns:
        float32 scalar; ln B for equal logits and distinct sentences.
    """
    target = positive.float() / positive.sum(dim=1, keepdim=True)
    forward = F.cross_entropy(logits, target)
    return (forward + F.cross_entropy(logits.t(), target)) / 2
