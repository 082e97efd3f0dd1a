"""Masked action modelling: fill in hidden runs of an action sequence, picture and words in view.

With every step hidden the same head predicts a whole chunk, which is action prediction.

Letters: B batch, n samples that are used, T action steps, A numbers in an action.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from tectum_core.masks import span_mask
from tectum_core.model import Context, PerceptionModel
from tectum_train.objectives.base import Objective, Outcome, PartSettings
from tectum_train.objectives.batch import Batch

__all__ = [
    "ActionPrediction",
    "ActionPredictionConfig",
    "MaskedAction",
    "MaskedActionConfig",
    "masked_error",
]

_Share = Annotated[float, Field(ge=0, le=1)]


class MaskedActionConfig(PartSettings):
    """Hidden runs of actions."""

    kind: Literal["masked_action"] = "masked_action"
    """Discriminator."""
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.15, 0.35, 0.55, 0.75, 0.95)
    """Share of steps hidden; one is drawn for each sample."""
    image_share: _Share = 0.8
    """How often the picture is shown."""
    text_share: _Share = 0.8
    """How often the instruction is shown."""
    state_share: _Share = 0.8
    """How often the robot's state is shown, if the model takes one."""


class ActionPredictionConfig(PartSettings):
    """The whole sequence from picture, instruction and state."""

    kind: Literal["action_prediction"] = "action_prediction"
    """Discriminator."""
    text_share: _Share = 1.0
    """How often the instruction is shown. Without it, what is being done must be read from the
    picture."""
    state_share: _Share = 1.0
    """How often the robot's state is shown, if the model takes one. Without it, where the hand is
    must be read from the picture."""


class MaskedAction(Objective):
    """Mean squared error on hidden steps, in standard deviations.

    Runs, not scattered steps: between neighbours, interpolation is too good to learn from.

    Source: MaskDP (arXiv:2211.12740).
    """

    name = "masked_action"

    def __init__(self, config: MaskedActionConfig, model: PerceptionModel) -> None:
        super().__init__()
        _require_actions(model, self.name)
        self.config = config
        self.model = model

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss."""
        used = self.config.used(batch)
        steps = batch.actions.shape[1]
        choice = torch.randint(len(self.config.ratios), (used,), generator=batch.generator)
        hidden = torch.stack(
            [span_mask(steps, self.config.ratios[int(c)], batch.generator) for c in choice]
        ).to(batch.actions.device)
        draws = torch.rand(3, generator=batch.generator).tolist()
        context = _context(
            self.model,
            batch,
            used,
            image=draws[0] < self.config.image_share,
            text=draws[1] < self.config.text_share,
            state=draws[2] < self.config.state_share,
        )
        loss = _error(self.model, batch, used, hidden, context)
        return Outcome(loss, {"error": loss.detach()})


class ActionPrediction(Objective):
    """Mean squared error on every step, in standard deviations; padded steps do not count."""

    name = "action_prediction"

    def __init__(self, config: ActionPredictionConfig, model: PerceptionModel) -> None:
        super().__init__()
        _require_actions(model, self.name)
        self.config = config
        self.model = model

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss."""
        used = self.config.used(batch)
        hidden = torch.ones_like(batch.padded[:used])
        draws = torch.rand(2, generator=batch.generator).tolist()
        context = _context(
            self.model,
            batch,
            used,
            image=True,
            text=draws[0] < self.config.text_share,
            state=draws[1] < self.config.state_share,
        )
        loss = _error(self.model, batch, used, hidden, context)
        return Outcome(loss, {"error": loss.detach()})


def masked_error(predicted: Tensor, actions: Tensor, counted: Tensor) -> Tensor:
    """Mean squared error over the counted steps.

    Args:
        predicted, actions: float[n, T, A], standardised.
        counted: bool[n, T].

    Returns:
        float32 scalar; 0 if nothing counts.
    """
    error = (predicted.float() - actions.float()).square().mean(dim=-1)
    weight = counted.float()
    return (error * weight).sum() / weight.sum().clamp(min=1)


def _require_actions(model: PerceptionModel, name: str) -> None:
    if model.fusion is None or model.fusion.actions is None:
        raise ValueError(f"{name} needs model.actions and model.fusion")


def _context(
    model: PerceptionModel, batch: Batch, used: int, *, image: bool, text: bool, state: bool
) -> Context:
    takes_state = model.config.actions is not None and model.config.actions.state_dimensions > 0
    return Context(
        image=batch.image(model).tokens[:used] if image else None,
        text=batch.text(model).tokens[:used] if text else None,
        text_seen=batch.ids_seen[:used] if text else None,
        state=batch.state[:used] if state and takes_state else None,
    )


def _error(
    model: PerceptionModel, batch: Batch, used: int, hidden: Tensor, context: Context
) -> Tensor:
    if model.fusion is None:
        raise ValueError("an action objective needs model.fusion")
    actions, padded = batch.actions[:used], batch.padded[:used]
    # Padding repeats the last action, which may be a hidden one: it is not shown either.
    predicted = model.fusion.fill_actions(actions, hidden | padded, context)
    return masked_error(predicted, actions, hidden & ~padded)
