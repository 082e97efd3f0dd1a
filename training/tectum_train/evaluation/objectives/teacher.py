"""What DINO's teacher says of held-out pictures and patches: much of each, and not the same of all.

A run that has collapsed can have a falling loss and a fair one. Both ways to collapse show in what
the teacher says: everything alike of each (entropy ln K), or one thing of all (0, and 0 of their
mean).

Letters: B pictures, M patches, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tectum_train.evaluation import gates_trunk
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.objectives.temporal import RANDOM
from tectum_train.losses.distillation import entropy
from tectum_train.objectives.batch import Batch
from tectum_train.objectives.dino import Dino

__all__ = ["measure_teacher"]


_MANY = {"view": "views", "patch": "patches"}


@dataclass(slots=True)
class _Said:
    """Sums over what was said, of one kind."""

    nats: float
    shares: Tensor
    """float64[K]."""
    number: int

    def add(self, other: _Said) -> _Said:
        """Both."""
        return _Said(self.nats + other.nats, self.shares + other.shares, self.number + other.number)


@torch.inference_mode()
def measure_teacher(objective: Dino, twin: Dino, batches: Iterable[Batch]) -> list[Measure]:
    """Mean entropy of the teacher's shares, and that of their mean, of pictures and of patches.

    Args:
        objective: under test, evaluating.
        twin: the same, untrained.
        batches: held out.
    """
    own, other = dict[str, _Said](), dict[str, _Said]()
    for number, batch in enumerate(batches):  # which is the seed of the patches asked about
        for found, whose in ((own, objective), (other, twin)):
            for kind, said in _said(whose, batch, number):
                found[kind] = found[kind].add(said) if kind in found else said
    measures = []
    for kind, said in own.items():
        nats = said.nats / said.number
        controls = {
            gates_trunk.OF_THEIR_MEAN: float(entropy(said.shares / said.number)),
            gates_trunk.UNIFORM: math.log(objective.config.prototypes),
            RANDOM: other[kind].nats / other[kind].number,
        }
        measures.append(
            Measure(
                f"teacher's entropy of a {kind}, nats",
                nats,
                controls,
                gates_trunk.TEACHER_RULE,
                gates_trunk.teacher_tells_apart(nats, controls),
                f"{said.number} {_MANY[kind]}",
            )
        )
    return measures


def _said(objective: Dino, batch: Batch, number: int) -> Iterator[tuple[str, _Said]]:
    patches = torch.Generator().manual_seed(number)
    for kind, shares in zip(_MANY, objective.teach(batch.earlier, patches), strict=True):
        if shares is not None:
            wide = shares.double()
            yield kind, _Said(float(entropy(wide).sum()), wide.sum(dim=0), len(wide))
