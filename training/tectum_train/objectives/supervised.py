"""Classification of labels that the data set gives: the field's baseline.

Letters: B batch, n samples that are used, C classes of a feature.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_core.model import PerceptionModel
from tectum_train.distributed import all_sum
from tectum_train.heads import perceptron
from tectum_train.losses.precision import wide
from tectum_train.objectives.base import Averaged, Outcome, PartSettings, Sums
from tectum_train.objectives.batch import Batch

__all__ = ["Supervised", "SupervisedConfig"]


class SupervisedConfig(PartSettings):
    """Learn what frames are labelled with."""

    kind: Literal["supervised"] = "supervised"
    """Discriminator."""
    classes: Annotated[dict[str, Annotated[int, Field(ge=2)]], Field(min_length=1)]
    """Features that are labels (task, object, phase …), and how many classes each has; its values
    go from 0 to one less."""
    layers: PositiveInt = 1
    """Linear layers of each feature's head; 1: a linear classifier."""
    hidden: PositiveInt = 256
    """Width of the heads' hidden layers, where there are any."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a label that all classes have in common (arXiv:1512.00567)."""

    @model_validator(mode="after")
    def _hidden_layers_are_there(self) -> Self:
        if self.layers == 1:
            self.refuse("hidden", "with layers of 2 or more, between which it lies")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The features."""
        return tuple(self.classes)


class Supervised(Averaged):
    """Cross-entropy on labels, the mean over features; ln C at first."""

    name = "supervised"

    def __init__(self, config: SupervisedConfig, model: PerceptionModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        width = model.config.vision.transformer.width
        self.heads = nn.ModuleList()
        for place, classes in enumerate(config.classes.values()):
            head = perceptron(width, config.hidden, classes, config.layers)
            last = head[-1]
            if isinstance(last, nn.Linear):  # all classes alike at first
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            self.heads.append(head)
            self.register_buffer(f"seen{place}", torch.zeros(classes, dtype=torch.long))
        self._new: dict[int, list[Tensor]] = {}

    def counted(self, batch: Batch) -> Tensor:
        """Samples."""
        return torch.tensor(self.config.used(batch), device=batch.earlier.device)

    def forward(self, batch: Batch) -> Outcome:
        """Outcome with the loss, and for each feature how often the classifier is right.

        Beside it, how often whoever always says the class that was most frequent so far is.

        Raises:
            ValueError: a label that is no class.
        """
        used = self.config.used(batch)
        pooled = batch.image(self.model).pooled[:used]
        losses: list[Tensor] = []
        metrics, sums = dict[str, Tensor](), dict[str, Sums]()
        for place, (name, classes) in enumerate(self.config.classes.items()):
            labels = _checked(batch.labels[name][:used], name, classes)
            logits = wide(self.heads[place](pooled))
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.smoothing)
            losses.append(loss)
            found = all_sum(F.one_hot(labels, classes).sum(dim=0))
            self._new.setdefault(place, []).append(found)
            metrics[f"{name}/accuracy"] = (logits.argmax(dim=1) == labels).float().mean()
            sums[f"{name}/majority"] = Sums(partial(_commonest, self._seen(place)), (found,))
            if len(self.config.classes) > 1:
                metrics[f"{name}/loss"] = loss.detach()
        chance = sum(map(math.log, self.config.classes.values())) / len(losses)
        return Outcome(torch.stack(losses).mean(), metrics, chance, sums=sums)

    def after_step(self) -> None:
        """Count the labels of this step."""
        for place, found in self._new.items():
            self._seen(place).add_(torch.stack(found).sum(dim=0))
        self._new.clear()

    def _seen(self, place: int) -> Tensor:
        """int64[C], how often each class of a feature was seen."""
        return self.get_buffer(f"seen{place}")


def _commonest(seen: Tensor, found: Tensor) -> Tensor:
    """How often who says the commonest class is right: int64[C] of earlier steps, and of this."""
    return found[(seen + found).argmax()] / found.sum()


def _checked(labels: Tensor, name: str, classes: int) -> Tensor:
    """The labels, all of which are classes: cross-entropy's own words would not say which."""
    least, most = (int(value) for value in labels.aminmax())
    if least < 0 or most >= classes:
        raise ValueError(
            f"{name} goes from {least} to {most}; objectives.supervised.classes allows 0 to "
            f"{classes - 1}"
        )
    return labels
