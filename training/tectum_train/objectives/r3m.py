"""R3M: neighbours in time lie near each other, and an instruction says what has got further.

Letters: B batch of this rank, n of all ranks, D width of the trunk, L width of the text trunk.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from tectum_core.model import PerceptionModel
from tectum_train.distributed import gather, mean_over_ranks
from tectum_train.heads import perceptron
from tectum_train.losses.precision import wide
from tectum_train.losses.temporal import language_reward, repeats, time_contrast
from tectum_train.objectives.base import Objective, Outcome, PartSettings, averages
from tectum_train.objectives.batch import Batch, Reads, given

__all__ = ["R3m", "R3mConfig"]

_START, _FIRST, _MIDDLE, _LAST, _GOAL = range(5)  # of `Batch.moments`
_PROGRESS = ((_GOAL, _START), (_MIDDLE, _FIRST), (_LAST, _MIDDLE))
"""A moment, and an earlier one of the same episode."""


class R3mConfig(PartSettings):
    """Time contrast, language reward, and little of everything."""

    kind: Literal["r3m"] = "r3m"
    """Discriminator."""
    language_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the language reward beside the time contrast; 0: no instruction is read."""
    penalty: Annotated[float, Field(ge=0)] = 1e-5
    """Weight of the L1 norm of the trunk's vectors, and of their L2 norm."""
    hidden: PositiveInt = 256
    """Width of the reward's hidden layers (1,024 in the paper)."""
    layers: PositiveInt = 3
    """Linear layers of the reward (5 in the paper)."""

    @property
    def reads(self) -> Reads:
        """Five moments of an episode."""
        return Reads.MOMENTS


class R3m(Objective):
    """Time contrast on distances, a reward from (start, moment, instruction), and sparsity.

    Negatives are all other episodes of all ranks, and for the reward those of other tasks: a
    sample never is its own, and which ones they are needs no draw.

    Source: R3M (arXiv:2203.12601).
    """

    name = "r3m"

    def __init__(self, config: R3mConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.reward: nn.Sequential | None = None
        if config.language_weight:
            if model.text is None:
                raise ValueError("r3m needs a text trunk (model.text), or language_weight 0")
            sees = model.config.vision.transformer.width
            reads = model.text.config.transformer.width
            self.reward = perceptron(2 * sees + reads, config.hidden, 1, config.layers)

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, its parts, and how often moments and rewards are in order.

        `aligned`: of three different moments, the ends are furthest apart; chance is 1/3.
        `progress`: an instruction's reward rises from a moment to a later one; chance is 1/2.
        `told`: it is higher than with any other task's episode; chance is one over all of them.
        Each over all ranks, and left out where there is nothing to put in order.
        """
        used = self.config.used(batch)
        frames = given(batch.moments, "moments")[:used]
        moments = self.model.vision(frames.flatten(0, 1)).pooled.view(used, 5, -1)
        repeated = repeats(frames)
        between = slice(_FIRST, _LAST + 1)
        time, aligned = time_contrast(
            moments[:, between], repeated[:, between, between], batch.episode[:used]
        )
        different = ~repeated[:, between, between].triu(1).any(dim=2).any(dim=1)
        metrics, asked = {"time": time.detach()}, {"aligned": (aligned.float(), different)}
        sizes = wide(moments)
        norms = sizes.abs().sum(dim=2) + torch.linalg.vector_norm(sizes, dim=2)
        loss = time + self.config.penalty * mean_over_ranks(norms)
        if self.reward is not None:
            language, more = self._language(self.reward, batch, moments, repeated)
            loss = loss + self.config.language_weight * language
            metrics["language"] = language.detach()
            asked |= more
        return Outcome(loss, metrics, sums=averages(asked))

    def _language(
        self, reward: nn.Module, batch: Batch, moments: Tensor, repeated: Tensor
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """The reward's loss over three moments; when it is right, and where it is asked."""
        used = len(moments)
        text, task = batch.text(self.model).pooled[:used], batch.task[:used]
        said = batch.content[:used].any(dim=1)
        every = gather(moments)
        others = task[:, None] != gather(task)[None]
        losses, rising, telling = [], [], []
        for later, earlier in _PROGRESS:
            same = repeated[:, later, earlier]
            told = self._reward(reward, every[:, _START], every[:, later], text[:, None])
            loss, rises, tells = language_reward(
                self._reward(reward, moments[:, _START], moments[:, later], text),
                self._reward(reward, moments[:, _START], moments[:, earlier], text),
                told,
                same,
                task,
                said,
            )
            losses.append(loss)
            rising.append(torch.stack([rises, said & ~same]))
            telling.append(torch.stack([tells, said & others.any(dim=1)]))
        asked = {}
        for name, each in (("progress", rising), ("told", telling)):
            right, counted = torch.cat(each, dim=1)
            asked[name] = right.float(), counted
        return torch.stack(losses).mean(), asked

    @staticmethod
    def _reward(reward: nn.Module, start: Tensor, moment: Tensor, text: Tensor) -> Tensor:
        """float[…] of two moments float[…, D] and an instruction float[…, L]."""
        shape = torch.broadcast_shapes(start.shape[:-1], moment.shape[:-1], text.shape[:-1])
        # Two scores are subtracted: what bfloat16 rounds off would be as large as their difference.
        with torch.autocast(start.device.type, enabled=False):
            read = [wide(one).expand(*shape, one.shape[-1]) for one in (start, moment, text)]
            score: Tensor = reward(torch.cat(read, dim=-1))[..., 0]
        return score
