"""What a run's own objectives can do on held-out episodes, as far as no bundle keeps it.

A bundle has the trunk alone of what CPC, DINO and R3M learn: their heads, pasts, teachers and
rewards end with the run. So they are measured while it is in memory, beside the same objective with
random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tectum_core.model import PerceptionModel
from tectum_train.data.samples import Samples
from tectum_train.engine.building import Run
from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.objectives.teacher import measure_teacher
from tectum_train.evaluation.objectives.temporal import held_out, measure_foresight, measure_order
from tectum_train.objectives.cpc import Cpc
from tectum_train.objectives.dino import Dino
from tectum_train.objectives.r3m import R3m

__all__ = ["measure_objectives"]

_SAMPLES = 512
"""Of the held-out episodes, or whole batches that come nearest to it."""
_TWIN, _OTHERS = 1, 2
"""Streams of the random weights, and of the instructions that are exchanged."""


def measure_objectives(
    run: Run,
    test: Samples,
    tell: Callable[[str], None] = lambda _: None,
    left_out: Callable[[str], None] = lambda _: None,
    device: str = "cpu",
) -> list[Measure]:
    """What CPC foretells, DINO's teacher says and R3M orders, of runs that have learnt to.

    Args:
        run: a finished one; its objectives are moved to `device`.
        test: held-out episodes, at the run's input size.
        tell: called with what is being measured.
        left_out: called with what is not, and why.
        device: a torch device.
    """
    recipe, found = run.recipe, list[Measure]()
    place = torch.device(device)
    number = max(1, round(_SAMPLES / recipe.schedule.batch_size))
    for part in run.objective.to(place).modules():
        if not isinstance(part, Cpc | Dino | R3m):
            continue
        tell(part.name)
        batches = held_out(recipe, test, run.tokenizer, run.scaling, number, place)
        draw = np.random.default_rng([recipe.seed, _OTHERS])
        own: list[Measure] = []
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(np.random.default_rng([recipe.seed, _TWIN]).integers(2**63)))
                untaught = PerceptionModel(recipe.model).eval()
                untaught = untaught.to(place)
                match part:
                    case Cpc():
                        twin = Cpc(part.config, untaught).eval().to(place)
                        own = measure_foresight(part, twin, batches)
                    case Dino():
                        teacher = Dino(part.config, untaught).eval().to(place)
                        own = measure_teacher(part, teacher, batches)
                    case R3m():
                        own = measure_order(part, untaught, batches, draw)
        except NothingToMeasure as why:
            left_out(f"{part.name}: {why}")
        found += [replace(one, part=part.name) for one in own]
    return found
