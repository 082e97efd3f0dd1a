"""What an objective is: a module that says one thing about a batch.

One file each; they know this base and the model core, never each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from tectum_core.architecture import Strict
from tectum_train.objectives.batch import Batch, Reads

__all__ = ["Objective", "ObjectiveSettings", "Outcome", "PartSettings"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one objective says about one batch."""

    loss: Tensor
    """float32 scalar, mean over the batch; carries the graph."""
    metrics: dict[str, Tensor]
    """Detached scalars under short names; the loop adds the objective's prefix."""


class ObjectiveSettings(Strict):
    """What every objective's configuration has."""

    weight: PositiveFloat = 1.0
    """Factor of its loss in the sum."""

    @property
    def reads(self) -> Reads:
        """What it takes of a sample beside its frame, words, actions and state."""
        return Reads.FRAME

    @property
    def clip_frames(self) -> int:
        """Fewest frames of the clips that it reads."""
        return 2

    @property
    def labels(self) -> tuple[str, ...]:
        """Features of the data set whose values it learns."""
        return ()


class PartSettings(ObjectiveSettings):
    """What every configuration has whose objective can do with a part of the batch."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the batch that this objective uses."""

    def used(self, batch: Batch) -> int:
        """How many samples that is: the first so many."""
        return max(1, round(len(batch) * self.fraction))


class Objective(nn.Module, ABC):
    """One thing to learn.

    Its forward takes a batch and gives an Outcome. An objective holds the model that it trains, so
    its parameters are the model's, and whatever it adds of its own.
    """

    name: str
    """Prefix of its metrics."""

    @abstractmethod
    def forward(self, batch: Batch) -> Outcome:
        """The objective's view of a batch."""

    def after_step(self) -> None:
        """Update what gradients do not; called after each optimiser step."""
