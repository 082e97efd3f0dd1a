"""Images and instructions that belong together, aware that many frames share a task.

Letters: b samples of this rank, n of all ranks, J joint width, K of the memory.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from tectum_core.architecture import Strict
from tectum_core.model import PerceptionModel
from tectum_core.model.perception import Joint
from tectum_train.distributed import all_sum, gather, interleaved, mean_over_ranks, world_size
from tectum_train.losses.contrastive import Contrasted, Older, info_nce, sigmoid_pairs
from tectum_train.losses.precision import wide
from tectum_train.objectives.base import Coupled, ObjectiveSettings, Outcome
from tectum_train.objectives.batch import Batch, given
from tectum_train.vector_queue import VectorQueue

__all__ = ["ImageText", "ImageTextConfig", "NegativesConfig"]

_MAX_LOG_SCALE = 4.605170185988092  # ln 100


class NegativesConfig(Strict):
    """Against what each frame and each sentence is told apart: sentences, frames of other tasks.

    What shares the task is never a negative, wherever it comes from. Other frames of the episode
    are therefore none: their sentence is the same, so they are positives.
    """

    queue: NonNegativeInt = 0
    """Vectors of earlier steps, K frames and K sentences, beside those of the step; 0: none. For
    batches that few tasks fit into; made by the model as it was then, `age` steps ago."""
    hardest: PositiveInt | None = None
    """Of all these, only so many count for each frame and sentence: those it is nearest to; None:
    all."""


class ImageTextConfig(ObjectiveSettings):
    """Contrast frames with instructions, both ways."""

    kind: Literal["image_text"] = "image_text"
    """Discriminator."""
    after: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an episode after which its frames count; 0: all. Tasks that undo each other begin as
    the other ends: an open drawer is the end of opening and the beginning of closing."""
    loss: Literal["info_nce", "sigmoid"] = "info_nce"
    """`info_nce`: which of all (CLIP). `sigmoid`: each pair by itself (SigLIP), which begins with
    model.joint {initial_scale: 10, bias: -10}."""
    exchange: Literal["ring", "gather"] = "ring"
    """How the sigmoid's ranks see each other's sentences: one rank's at a time, or all at once,
    which is quicker and takes more memory. InfoNCE needs them all at once."""
    negatives: NegativesConfig = NegativesConfig()
    """Of InfoNCE; the sigmoid has those of the step."""

    @model_validator(mode="after")
    def _sigmoid_has_the_steps_own(self) -> Self:
        if self.loss == "sigmoid" and self.negatives != NegativesConfig():
            raise ValueError(
                "negatives.queue and negatives.hardest belong to loss: info_nce; the sigmoid asks "
                "of every pair of the step, so most of its pairs are easy by intention"
            )
        if self.loss == "info_nce":
            self.refuse("exchange", "with loss 'sigmoid' alone")
        return self

    @property
    def fewest(self) -> int:
        """A pair, and another that it is told from, if no queue has those."""
        return 1 if self.negatives.queue else 2


class ImageText(Coupled):
    """Frames and sentences of one task are positives of each other, all others negatives.

    Without that, frames of one task would be pushed apart as false negatives, and telling its
    paraphrases from each other could only be learnt by heart, episode by episode.

    Where the joint space has truncations, the first so many dimensions are contrasted as all are,
    and the loss is the mean over these lengths.

    Source: CLIP (arXiv:2103.00020), SigLIP (arXiv:2303.15343); several positives: SupCon
    (arXiv:2004.11362), L_out; a memory without a slow encoder: XBM (arXiv:1912.06798); truncations:
    Matryoshka (arXiv:2205.13147).
    """

    name = "image_text"

    def __init__(self, config: ImageTextConfig, model: PerceptionModel) -> None:
        super().__init__()
        if model.joint is None or model.config.joint is None:
            raise ValueError(
                "model.joint: found null; allowed: the space of image_text, such as {width: …}, "
                "and model.text"
            )
        if config.loss == "sigmoid" and model.joint.bias is None:
            raise ValueError("image_text with loss: sigmoid needs model.joint.bias, -10 at first")
        self.config = config
        self.model = model
        length, width = config.negatives.queue, model.config.joint.width
        self.images = VectorQueue(length, width) if length else None
        self.texts = VectorQueue(length, width) if length else None
        self._new: tuple[Tensor, ...] = ()

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Unit vectors in the joint space, float32[b, J] each: `image` and `text`."""
        joint = self._joint()
        pooled, words = batch.image(self.model).pooled, batch.text(self.model).pooled
        # From here on float32: rounded unit vectors put the gradient off by percents at scale 100.
        with torch.autocast(pooled.device.type, enabled=False):
            return {
                "image": joint.embed_image(wide(pooled)),
                "text": joint.embed_text(wide(words)),
            }

    def judged(self, features: dict[str, Tensor], batch: Batch) -> Outcome:
        """Outcome with the loss, and each frame's accuracy in finding a sentence of its own.

        Beside the accuracy by all dimensions that by the first so many, for each truncation.
        Without a frame that counts the loss is 0, its gradients too, and there is no accuracy.
        """
        joint, image, text = self._joint(), features["image"], features["text"]
        counted = (batch.progress >= self.config.after) & batch.content.any(dim=1)
        metrics = {"scale": joint.log_scale.detach().exp()}
        if self.config.loss == "sigmoid" and joint.bias is not None:
            metrics["bias"] = joint.bias.detach().clone()  # as it was before the step
        shorter = given(self.model.config.joint, "a joint space").truncations
        told = [
            self._contrasted(_first(image, width), _first(text, width), batch.task, counted)
            for width in (None, *shorter)
        ]
        if self.images is not None:
            metrics["age"] = self.images.ages().float().mean()
            own = (image.detach(), text.detach(), batch.task, counted)
            self._new = tuple(interleaved(gather(one), world_size()) for one in own)
        # Which frames a step draws is settled by the seed: an error would come again.
        if bool(all_sum(counted.sum())):
            for one, name in zip(told, ("", *(f"_{width}" for width in shorter)), strict=True):
                metrics[f"accuracy{name}"] = mean_over_ranks(one.hit.float(), counted)
        share = told[0].chance
        chance = None if share is None else float(all_sum(share)) / world_size()
        return Outcome(torch.stack([one.loss for one in told]).mean(), metrics, chance)

    def _contrasted(self, image: Tensor, text: Tensor, task: Tensor, counted: Tensor) -> Contrasted:
        """Unit vectors of equally many dimensions, float32[b, d] each, against each other."""
        joint, config = self._joint(), self.config
        scale = joint.log_scale.exp()
        if config.loss == "sigmoid" and joint.bias is not None:
            return sigmoid_pairs(image, text, scale, joint.bias, task, counted, config.exchange)
        older = self._older(image.shape[1])
        return info_nce(image, text, scale, task, counted, older, config.negatives.hardest)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep InfoNCE's scale at most 100, and this step's vectors as negatives of later ones."""
        if self.config.loss == "info_nce":
            self._joint().log_scale.clamp_(max=_MAX_LOG_SCALE)
        if self.images is not None and self.texts is not None and self._new:
            images, texts, task, counted = self._new
            self.images.add(images[counted], task[counted])
            self.texts.add(texts[counted], task[counted])
        self._new = ()

    def _joint(self) -> Joint:
        return given(self.model.joint, "a joint space")

    def _older(self, width: int) -> Older | None:
        if self.images is None or self.texts is None:
            return None
        images, texts = _first(self.images.vectors, width), _first(self.texts.vectors, width)
        return Older(images, texts, self.images.group, self.images.filled)


def _first(vectors: Tensor, width: int | None) -> Tensor:
    """Unit vectors' first so many dimensions, as unit vectors; None or all: as they are."""
    if width is None or width == vectors.shape[1]:
        return vectors
    return F.normalize(vectors[:, :width], dim=1)
