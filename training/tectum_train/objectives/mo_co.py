"""MoCo: a view finds its partner's key among many older keys, made by a slow copy of the trunk.

Letters: B batch of this rank, n of all ranks, D width of a key, K of the queue.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.model import PerceptionModel, VisionTransformer
from tectum_train.distributed import gather
from tectum_train.heads import perceptron
from tectum_train.losses.contrastive import batch_info_nce, queue_info_nce
from tectum_train.momentum import Slow, momentum_at
from tectum_train.objectives.base import Objective, Outcome, PartSettings
from tectum_train.objectives.batch import Batch, Reads, given

__all__ = ["KeyQueue", "MoCo", "MoCoConfig"]


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

    @property
    def reads(self) -> Reads:
        """Two views."""
        return Reads.VIEWS


class _Encoder(nn.Module):
    """Trunk and projector, as one thing to follow."""

    def __init__(self, vision: VisionTransformer, config: MoCoConfig) -> None:
        super().__init__()
        self.vision = vision
        layers = 2 if config.queue else 3
        width = vision.config.transformer.width
        self.projector = perceptron(width, config.hidden, config.width, layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """float[B, 3, S, S] to float[B, D]."""
        projected: Tensor = self.projector(self.vision(pixels).pooled)
        return projected


class MoCo(Objective):
    """InfoNCE of queries against keys of a slow encoder.

    Source: MoCo (arXiv:1911.05722), v2 (arXiv:2003.04297), v3 (arXiv:2104.02057).
    """

    name = "mo_co"

    def __init__(self, config: MoCoConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.encoder = _Encoder(model.vision, config)
        self.slow = Slow(self.encoder)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.queue = KeyQueue(config.queue, config.width) if config.queue else None
        self._new: list[Tensor] = []
        self.predictor = (
            None if config.queue else perceptron(config.width, config.hidden, config.width)
        )

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, how often the own key is nearest, and the keys' mean age."""
        views = given(batch.views, "views")[: self.config.used(batch)]
        first, second = views.unbind(1)
        if self.queue is None:
            return self._symmetric(first, second, given(self.predictor, "a predictor"))
        queries = F.normalize(self.encoder(first).float(), dim=1)
        keys = self._keys(second)
        loss, hit = queue_info_nce(queries, keys, self.queue.keys, self.config.temperature)
        metrics = {"accuracy": hit.float().mean(), "age": self.queue.ages().float().mean()}
        self._new.append(gather(keys))
        return Outcome(loss, metrics)

    def after_step(self) -> None:
        """Let the slow encoder follow, and the new keys into the queue.

        Not before: in the queue a key would be its own query's negative.
        """
        if self.queue is not None and self._new:
            self.queue.add(torch.cat(self._new))
        self._new.clear()
        momentum, rise = self.config.momentum, self.config.momentum_steps
        self.slow.follow(
            self.encoder, momentum_at(int(self.steps), rise, momentum) if rise else momentum
        )
        self.steps += 1

    def _symmetric(self, first: Tensor, second: Tensor, predictor: nn.Module) -> Outcome:
        """Version 3: each view asks for the other among the batch's own."""
        losses, hits = [], []
        for asked, told in ((first, second), (second, first)):
            queries = F.normalize(predictor(self.encoder(asked)).float(), dim=1)
            loss, hit = batch_info_nce(queries, self._keys(told), self.config.temperature)
            losses.append(loss)
            hits.append(hit)
        return Outcome(losses[0] + losses[1], {"accuracy": torch.cat(hits).float().mean()})

    @torch.no_grad()
    def _keys(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.slow.copy(pixels).float(), dim=1)


class KeyQueue(nn.Module):
    """The last K keys, oldest first to be replaced, and when each came."""

    keys: Tensor
    came: Tensor
    turn: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        # Random at first, as in the paper; all of it belongs to a checkpoint.
        self.register_buffer("keys", F.normalize(torch.randn(length, width), dim=1))
        self.register_buffer("came", torch.full((length,), -1, dtype=torch.long))
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    def ages(self) -> Tensor:
        """int64[K], how many turns ago each key came; one more than there were for random ones."""
        return torch.where(self.came >= 0, self.turn - self.came, self.turn + 1)

    @torch.no_grad()
    def add(self, keys: Tensor) -> None:
        """Put float[n, D] in the place of the oldest."""
        length, count = len(self.keys), len(keys)
        kept = keys[-length:].to(self.keys.dtype)
        oldest = self.came.argsort(stable=True)[: len(kept)]
        # In the order of places, so that the queue stays one ring however many come at once.
        places = oldest.sort().values if count >= length else oldest
        self.keys[places], self.came[places] = kept, self.turn
        self.turn += 1
