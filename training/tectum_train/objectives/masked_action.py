"""Masked action modelling: fill in hidden runs of an action sequence, picture and words in view.

With every step hidden the same head predicts a whole chunk, which is action prediction.

Letters: B batch, n samples that are used, T action steps, A numbers in an action.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from itertools import islice
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from tectum_core.architecture import ModelConfig
from tectum_core.masks import span_mask
from tectum_core.model import Context, PerceptionModel
from tectum_core.model.fusion import straight
from tectum_train.losses.masked import binned_actions, squared_actions
from tectum_train.objectives.base import Averaged, Outcome, PartSettings
from tectum_train.objectives.batch import Batch

__all__ = ["ActionPrediction", "ActionPredictionConfig", "MaskedAction", "MaskedActionConfig"]

_Share = Annotated[float, Field(ge=0, le=1)]


class _ActionSettings(PartSettings):
    """What both have."""

    loss: Literal["mse", "cross_entropy"] = "mse"
    """`mse`: squared error of the action, in standard deviations; `cross_entropy`: of the bins that
    its numbers lie in, for a model that has bins (`model.actions.bins`)."""
    text_share: _Share = 1.0
    """How often the instruction is shown. Without it, what is being done must be read from the
    picture."""
    state_share: _Share = 1.0
    """How often the robot's state is shown, if the model takes one. Without it, where the hand is
    must be read from the picture."""


class MaskedActionConfig(_ActionSettings):
    """Hidden runs of actions."""

    kind: Literal["masked_action"] = "masked_action"
    """Discriminator."""
    ratios: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (
        0.15, 0.35, 0.55, 0.75, 0.95,
    )  # fmt: skip
    """Share of steps hidden; one is drawn for each sample."""
    image_share: _Share = 0.8
    """How often the picture is shown."""
    text_share: _Share = 0.8
    """How often the instruction is shown."""
    state_share: _Share = 0.8
    """How often the robot's state is shown, if the model takes one."""

    def trains_trunk(self, _: ModelConfig) -> bool:
        """Where pictures are shown."""
        return self.image_share > 0


class ActionPredictionConfig(_ActionSettings):
    """The whole chunk of `model.actions.max_steps` from picture, instruction and state."""

    kind: Literal["action_prediction"] = "action_prediction"
    """Discriminator."""


class _Actions(Averaged):
    """The error on hidden steps of what the fusion fills in; padded steps do not count."""

    def __init__(self, config: _ActionSettings, model: PerceptionModel) -> None:
        super().__init__()
        if model.fusion is None or model.fusion.actions is None:
            lacking = "fusion" if model.fusion is None else "actions"
            raise ValueError(
                f"model.{lacking}: found null; allowed: what {self.name} fills actions in with, "
                "model.actions and model.fusion"
            )
        if config.loss == "cross_entropy" and model.fusion.bins is None:
            raise ValueError(
                f"objectives.{self.name}.loss: found 'cross_entropy'; allowed: 'mse', or where "
                "model.actions.bins says which bins"
            )
        self.settings = config
        self.model = model

    @abstractmethod
    def hidden(self, batch: Batch) -> Tensor:
        """bool[n, T] of the first n samples, which are those that are used."""

    def counted(self, batch: Batch) -> Tensor:
        """Hidden steps that lie in their episode."""
        hidden = self.hidden(batch)
        return (hidden & ~batch.padded[: len(hidden)]).sum()

    def _filled(self, batch: Batch, hidden: Tensor, image_share: float = 1.0) -> Outcome:
        """Outcome with the loss, the squared error of what is predicted, and what it must beat.

        Args:
            batch: all of it.
            hidden: bool[n, T], of its first n samples.
            image_share: how often the picture is shown.
        """
        fusion, used = self.model.fusion, len(hidden)
        if fusion is None:
            raise ValueError(f"{self.name} needs model.fusion")
        context = self._context(batch, used, image_share)
        actions, padded = batch.actions[:used], batch.padded[:used]
        shown = batch.shown_actions[:used]
        counted = hidden & ~padded
        # Padding repeats the last action, which may be a hidden one: it is not shown either.
        unseen = hidden | padded
        if self.settings.loss == "cross_entropy" and fusion.bins is not None:
            logits = fusion.guess_actions(shown, unseen, context)
            loss = binned_actions(logits, fusion.bins.places(actions), counted)
            predicted = fusion.bins.expected(logits.detach())
            error = squared_actions(predicted, actions, counted)
            chance = math.log(fusion.bins.config.count)
        else:
            chance = 1.0  # of standardised actions, the mean
            loss = error = squared_actions(
                fusion.fill_actions(shown, unseen, context), actions, counted
            )
        # Of the line between visible steps; where none is visible, of the mean action.
        line = squared_actions(straight(shown, unseen), actions, counted)
        return Outcome(loss, {"error": error.detach(), "line": line}, chance)

    def _context(self, batch: Batch, used: int, image_share: float) -> Context:
        config, settings = self.model.config.actions, self.settings
        takes_state = config is not None and config.state_dimensions > 0
        image, text, state = torch.rand(3, generator=batch.generator).tolist()
        looks, reads = image < image_share, text < settings.text_share
        feels = takes_state and state < settings.state_share
        return Context(
            image=batch.image(self.model).tokens[:used] if looks else None,
            text=batch.text(self.model).tokens[:used] if reads else None,
            text_seen=batch.ids_seen[:used] if reads else None,
            state=batch.state[:used] if feels else None,
        )


class MaskedAction(_Actions):
    """One hidden run in each sequence.

    Runs, not scattered steps: between neighbours, interpolation is too good to learn from.

    Source: MaskDP (arXiv:2211.12740).
    """

    name = "masked_action"

    def __init__(self, config: MaskedActionConfig, model: PerceptionModel) -> None:
        super().__init__(config, model)
        self.config = config

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and the errors of what is filled in and of a straight line."""
        return self._filled(batch, self.hidden(batch), self.config.image_share)

    def hidden(self, batch: Batch) -> Tensor:
        """One run in each."""
        steps = batch.actions.shape[1]
        streams = islice(batch.streams(self.name), self.config.used(batch))
        masks = [span_mask(steps, self._ratio(stream), stream) for stream in streams]
        return torch.stack(masks).to(batch.actions.device)

    def _ratio(self, stream: Generator) -> float:
        ratios = self.config.ratios
        return ratios[int(torch.randint(len(ratios), (), generator=stream))]


class ActionPrediction(_Actions):
    """Every step hidden."""

    name = "action_prediction"

    def __init__(self, config: ActionPredictionConfig, model: PerceptionModel) -> None:
        super().__init__(config, model)
        self.config = config

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and the errors of what is predicted and of the mean action."""
        return self._filled(batch, self.hidden(batch))

    def hidden(self, batch: Batch) -> Tensor:
        """All of them."""
        return torch.ones_like(batch.padded[: self.config.used(batch)])
