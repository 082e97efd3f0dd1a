"""What an objective is: a module that says one thing about a batch.

One file each; they know this base and the model core, never each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from tectum_core.architecture import ModelConfig, Strict
from tectum_core.preprocess import ImagePreprocessing
from tectum_train.distributed import all_sum
from tectum_train.losses.precision import sum_dtype
from tectum_train.objectives.batch import Batch, Reads

__all__ = [
    "Averaged",
    "Coupled",
    "Objective",
    "ObjectiveSettings",
    "Outcome",
    "PartSettings",
    "Sums",
    "averages",
    "shares",
]


@dataclass(frozen=True, slots=True)
class Sums:
    """A metric that is no mean over samples, such as how many codes are in use.

    It is made of what pieces of a batch add up before.
    """

    make: Callable[..., Tensor]
    """The metric, a scalar, of the sums."""
    parts: tuple[Tensor, ...]
    """Of all ranks' samples."""
    asked: bool = True
    """Whether any of them was asked; the metric is left out else. Alike on all ranks."""

    def __add__(self, other: Sums) -> Sums:
        """Those of both pieces."""
        both = zip(self.parts, other.parts, strict=True)
        added = tuple(one + two for one, two in both)
        return Sums(self.make, added, self.asked or other.asked)

    def value(self) -> Tensor:
        """The metric."""
        return self.make(*self.parts)


@torch.no_grad()
def shares(told: Mapping[str, tuple[Tensor, Tensor, Tensor]], least: float) -> dict[str, Sums]:
    """Metrics that are one mean as a share of another, over what was asked of all ranks' samples.

    One that nobody was asked is left out: 0 would be an answer. All ranks tell of the same names;
    the device is waited for once.

    Args:
        told: by name what was answered, float[…], what it is a share of, float[…], and bool[…],
            where it was asked; elsewhere both may be anything.
        least: what the other mean is taken for, if it is below that.
    """
    sums = [
        torch.stack(
            [
                one.sum(dtype=sum_dtype(one.device))
                for one in (values.where(asked, 0), others.where(asked, 0), asked)
            ]
        )
        for values, others, asked in told.values()
    ]
    every = all_sum(torch.stack(sums))
    some = every[:, 2].tolist()
    return {
        name: Sums(partial(_quotient, least=least), parts.unbind(), number > 0)
        for name, parts, number in zip(told, every, some, strict=True)
    }


def averages(told: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Sums]:
    """Metrics that are means over what was asked of all ranks' samples, as `shares` are.

    Args:
        told: by name what was answered, float[…], and bool[…], where it was asked.
    """
    ones = {name: (one, torch.ones_like(one), asked) for name, (one, asked) in told.items()}
    return shares(ones, least=1.0)


def _quotient(total: Tensor, other: Tensor, number: Tensor, least: float) -> Tensor:
    return total / other.clamp(min=least * number)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one objective says about one batch."""

    loss: Tensor
    """float32 scalar, mean over the batch; carries the graph."""
    metrics: dict[str, Tensor]
    """Detached scalars under short names; the loop adds the objective's prefix."""
    chance: float | None = None
    """The loss of who knows nothing, such as ln B; None: there is no such number."""
    divisors: Mapping[str, Tensor] = field(default_factory=dict)
    """Of metrics that are shares, what they are shares of: where a batch comes in pieces, both are
    averaged before one is divided by the other."""
    sums: Mapping[str, Sums] = field(default_factory=dict)
    """More metrics, made of sums; those that were asked are put beside the others."""
    settled: bool = True
    """Whether the loss is in the unit that it keeps; who weighs it by its size waits for that."""

    def __post_init__(self) -> None:
        made = {key: one.value() for key, one in self.sums.items() if one.asked}
        object.__setattr__(self, "metrics", {**self.metrics, **made})


class ObjectiveSettings(Strict):
    """What every objective's configuration has."""

    weight: PositiveFloat = 1.0
    """Factor of its loss in the sum."""

    @property
    def reads(self) -> Reads:
        """What it takes of a sample beside its frame, words, actions and state."""
        return Reads.FRAME

    @property
    def sees_frames(self) -> bool:
        """Whether it looks at frames as `augmentation` changes them, and not at views alone."""
        return True

    @property
    def fewest(self) -> int:
        """Samples of a step, of all ranks, below which there is nothing to learn."""
        return 1

    def trains_trunk(self, _: ModelConfig) -> bool:
        """Whether its loss shapes the image trunk of such a model."""
        return True

    def refuse(self, name: str, allowed: str) -> None:
        """Refuse a setting that has another value than by default.

        Args:
            name: of the field, which would do nothing.
            allowed: where it does something.

        Raises:
            ValueError: it has another value.
        """
        found, usual = getattr(self, name), type(self).model_fields[name].default
        if found != usual:
            kind = type(self).model_fields["kind"].default
            raise ValueError(f"{kind}.{name}: found {found}; allowed: {allowed}")

    @property
    def clip_frames(self) -> int:
        """Fewest frames of the clips that it reads."""
        return 2

    @property
    def labels(self) -> tuple[str, ...]:
        """Features of the data set whose values it learns."""
        return ()

    @property
    def files(self) -> tuple[str, ...]:
        """Files that it learns from beside the data set; with other content it is another run."""
        return ()


class PartSettings(ObjectiveSettings):
    """What every configuration has whose objective can do with a part of the batch."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the batch that this objective uses; of each piece, where it comes in pieces."""

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

    def check(self, images: ImagePreprocessing) -> None:
        """Refuse pictures that are not what it learns from; called before the first step.

        Raises:
            ValueError: they are not made as what it has read from files demands.
        """

    def leave(self, folder: Path, images: ImagePreprocessing) -> None:
        """Write what other recipes read of a finished run.

        Args:
            folder: of the run; its bundle lies there too.
            images: how its pictures were made.
        """


class Averaged(Objective):
    """One whose loss is a mean over what its samples have, so a batch may come in pieces."""

    @abstractmethod
    def counted(self, batch: Batch) -> Tensor:
        """Over how many things of these samples the loss is a mean: a scalar.

        Pieces that have more of them count for more, as they would in one mean over all.
        """


class Coupled(Objective):
    """One that judges all samples together, by vectors that each has by itself.

    Where a batch comes in pieces, the vectors are made twice: first without a graph, to be judged
    all at once, and then again to take on the gradients that the judgement gave them.

    Source: GradCache (arXiv:2101.06983).
    """

    @abstractmethod
    def features(self, batch: Batch) -> dict[str, Tensor]:
        """What is judged: float[n, …] each, row i of the i-th sample.

        Changes no state, and draws from torch's global generator or the samples' own streams alone.
        """

    @abstractmethod
    def judged(self, features: dict[str, Tensor], batch: Batch) -> Outcome:
        """What the whole of a rank's batch says; it asks the other ranks itself.

        Args:
            features: of all n samples.
            batch: the same samples.
        """

    def forward(self, batch: Batch) -> Outcome:
        """The batch's own features, judged."""
        return self.judged(self.features(batch), batch)
