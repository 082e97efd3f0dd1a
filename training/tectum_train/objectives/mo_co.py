"""MoCo: a view finds its partner's key among many older keys, made by a slow copy of the trunk.

Letters: b samples of this rank that are used, v views that ask, W width of the trunk, D of a key, K
of the queue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.model import PerceptionModel, VisionTransformer
from tectum_train.distributed import gather, interleaved, world_size
from tectum_train.heads import batch_norm, perceptron
from tectum_train.losses.contrastive import batch_info_nce, queue_info_nce
from tectum_train.losses.distillation import koleo
from tectum_train.losses.precision import wide
from tectum_train.momentum import Slow, momentum_at
from tectum_train.objectives.base import Coupled, Outcome, PartSettings
from tectum_train.objectives.batch import Batch, Reads, given
from tectum_train.vector_queue import VectorQueue

__all__ = ["MoCo", "MoCoConfig"]


class MoCoConfig(PartSettings):
    """Momentum contrast; version 2 with a queue, version 3 with a predictor instead."""

    kind: Literal["mo_co"] = "mo_co"
    """Discriminator."""
    queue: NonNegativeInt = 4096
    """Keys kept, K (65,536 in the paper); 0: version 3, the batch's own keys and a predictor."""
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the slow copy that a step leaves (0.999 in runs of 200 epochs)."""
    momentum_steps: NonNegativeInt = 0
    """Steps over which momentum rises to 1 along a cosine, as in version 3; 0: it stays."""
    temperature: PositiveFloat = 0.2
    """What cosines are divided by."""
    hidden: PositiveInt = 256
    """Width of the projector's hidden layers."""
    width: PositiveInt = 128
    """Length of a key."""
    batch_norm: bool = True
    """Whether queries and keys end in BatchNorm over all ranks, as version 3's heads do. Without it
    they have a mean that wanders, and a query can tell its key from older ones by that alone."""
    frozen_patches: bool = False
    """Whether the trunk's projection of patches stays random, as in version 3, whose training else
    stumbles (arXiv:2104.02057, section 4); of a trunk that no other objective trains."""

    koleo_weight: NonNegativeFloat = 0.0
    """Weight of what keeps the trunk's own vectors apart (KoLeo, as DINOv2 has it). What BatchNorm
    divides by, the loss cannot make larger: without it all pictures' vectors may come to point one
    way, which a probe sees through and whoever compares them by their cosines does not."""

    @property
    def sees_frames(self) -> bool:
        """Views alone."""
        return False

    @property
    def reads(self) -> Reads:
        """Two views."""
        return Reads.VIEWS

    @property
    def fewest(self) -> int:
        """A picture, and another that it is told from or that it has a variance with."""
        return 2 if self.batch_norm or not self.queue or self.koleo_weight else 1


class _Encoder(nn.Module):
    """Trunk and projector, as one thing to follow."""

    def __init__(self, vision: VisionTransformer, config: MoCoConfig) -> None:
        super().__init__()
        self.vision = vision
        layers = 2 if config.queue else 3
        width = vision.config.transformer.width
        self.projector = perceptron(width, config.hidden, config.width, layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """float[b, 3, S, S] to float[b, D]."""
        projected: Tensor = self.projector(self.vision(pixels).pooled)
        return projected


class MoCo(Coupled):
    """InfoNCE of queries against keys of a slow encoder.

    Source: MoCo (arXiv:1911.05722), v2 (arXiv:2003.04297), v3 (arXiv:2104.02057).
    """

    name = "mo_co"

    def __init__(self, config: MoCoConfig, model: PerceptionModel) -> None:
        super().__init__()
        if config.frozen_patches:
            if model.vision.config.stem is not None:
                raise ValueError("mo_co.frozen_patches: found true; allowed: without a stem alone")
            model.vision.embed.requires_grad_(False)
        self.config = config
        self.model = model
        self.encoder = _Encoder(model.vision, config)
        self.slow = Slow(self.encoder)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.queue = VectorQueue(config.queue, config.width) if config.queue else None
        self._new: Tensor | None = None
        self.predictor = (
            None if config.queue else perceptron(config.width, config.hidden, config.width)
        )

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """What `query` and `key` are made of, float[b, D]; of version 3 float[b, 2, D], by view.

        Where they are kept apart, `seen` too, the trunk's vectors of what asks: float[b, v, W].
        """
        views = given(batch.views, "views")[: self.config.used(batch)]
        first, second = views.unbind(1)
        asking = (first,) if self.predictor is None else (first, second)
        seen = [self.encoder.vision(one).pooled for one in asking]
        asked = [self.encoder.projector(one) for one in seen]
        if self.predictor is None:
            made = {"query": asked[0], "key": self._keys(second)}
        else:
            told = [self._keys(one) for one in asking]
            made = {
                "query": torch.stack([self.predictor(one) for one in asked], dim=1),
                "key": torch.stack(told, dim=1),
            }
        return {**made, "seen": torch.stack(seen, dim=1)} if self.config.koleo_weight else made

    def judged(self, features: dict[str, Tensor], _: Batch) -> Outcome:
        """Outcome with the loss, how often the own key is nearest, and the keys' mean age.

        `koleo`, where vectors are kept apart: minus the logarithm of how far the nearest lie.
        """
        found = self._contrast(features)
        if not self.config.koleo_weight:
            return found
        apart = torch.stack([koleo(one) for one in features["seen"].unbind(1)]).mean()
        loss = found.loss + self.config.koleo_weight * apart
        return replace(found, loss=loss, metrics={**found.metrics, "koleo": apart.detach()})

    def _contrast(self, features: dict[str, Tensor]) -> Outcome:
        queries, keys = self._unit(features["query"]), self._unit(features["key"].detach())
        if self.queue is None:
            return self._symmetric(queries.unbind(1), keys.unbind(1))
        loss, hit = queue_info_nce(queries, keys, self.queue.vectors, self.config.temperature)
        metrics = {"accuracy": hit.float().mean(), "age": self.queue.ages().float().mean()}
        self._new = interleaved(gather(keys), world_size())
        return Outcome(loss, metrics, math.log(1 + self.config.queue))

    def after_step(self) -> None:
        """Let the slow encoder follow, and the new keys into the queue.

        Not before: in the queue a key would be its own query's negative.
        """
        if self.queue is not None and self._new is not None:
            self.queue.add(self._new)
        self._new = None
        momentum, rise = self.config.momentum, self.config.momentum_steps
        self.slow.follow(
            self.encoder, momentum_at(int(self.steps), rise, momentum) if rise else momentum
        )
        self.steps += 1

    def _symmetric(self, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Outcome:
        """Version 3: each view asks for the other among the batch's own."""
        losses, hits = [], []
        for asked, told in zip(queries, reversed(keys), strict=True):
            loss, hit = batch_info_nce(asked, told, self.config.temperature)
            losses.append(loss)
            hits.append(hit)
        chance = 4 * self.config.temperature * math.log(world_size() * len(keys[0]))
        return Outcome(losses[0] + losses[1], {"accuracy": torch.cat(hits).float().mean()}, chance)

    @torch.no_grad()
    def _keys(self, pixels: Tensor) -> Tensor:
        projected: Tensor = self.slow.copy(pixels)
        return projected

    def _unit(self, projected: Tensor) -> Tensor:
        """Unit vectors along the last dimension, of whole batches alone."""
        normed = batch_norm(projected) if self.config.batch_norm else wide(projected)
        return F.normalize(normed, dim=-1)
