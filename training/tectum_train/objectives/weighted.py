"""Several objectives at once: a weighted sum of objectives is an objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from tectum_train.objectives.base import Objective, Outcome
from tectum_train.objectives.batch import Batch

__all__ = ["WeightedSum", "named"]


class WeightedSum(Objective):
    """The sum of several objectives' weighted losses, their metrics side by side."""

    name = ""

    def __init__(self, weighted: Sequence[tuple[float, Objective]]) -> None:
        super().__init__()
        self.weights = [weight for weight, _ in weighted]
        self.parts = nn.ModuleList(objective for _, objective in weighted)

    def terms(self) -> Iterator[tuple[float, Objective]]:
        """Each weight with its objective; those of a sum among them one by one."""
        for weight, part in zip(self.weights, self.parts, strict=True):
            if isinstance(part, WeightedSum):
                yield from ((weight * inner, one) for inner, one in part.terms())
            elif isinstance(part, Objective):
                yield weight, part

    def forward(self, batch: Batch) -> Outcome:
        """The weighted sum; metrics under `<objective>/<metric>`, each loss among them."""
        total: Tensor = torch.zeros((), device=batch.earlier.device)
        metrics: dict[str, Tensor] = {}
        for weight, part in self.terms():
            outcome: Outcome = part(batch)
            total = total + weight * outcome.loss
            metrics |= named(part, outcome)
        return Outcome(total, metrics)

    def after_step(self) -> None:
        """Every part's."""
        for _, part in self.terms():
            part.after_step()


def named(part: Objective, outcome: Outcome) -> dict[str, Tensor]:
    """An objective's metrics under its name, its loss among them."""
    values = {"loss": outcome.loss.detach(), **outcome.metrics}
    return {f"{part.name}/{key}": value for key, value in values.items()}
