"""Many tasks' batches in pieces: what the whole batch says and teaches, under fixed weights."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tests.training.engine.test_train_accumulation import wide
from tests.training.tiny import batch, model, tokenizer
from torch import Tensor

from tectum_train.engine.accumulation import backward, indivisible
from tectum_train.objectives import ObjectiveConfig, Outcome, objective_for
from tectum_train.tasks import ManyTasks, TasksConfig

READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)
TURNS = {"pattern": ["image_text", "masked_image"]}
SETTINGS: dict[str, Any] = {
    "fixed": {},
    "importance": {"weighting": {"kind": "importance"}},
    "turns": {"alternate": TURNS},
    "turns, importance": {"alternate": TURNS, "weighting": {"kind": "importance"}},
}


def many(settings: Any, *kinds: str) -> ManyTasks:
    """These objectives in float64, each with a weight of its own."""
    torch.manual_seed(0)
    network = model()
    parts = [
        (1.0 + place, objective_for(READ.validate_python({"kind": kind}), network, tokenizer()))
        for place, kind in enumerate(kinds)
    ]
    config = TasksConfig.model_validate(settings)
    made: ManyTasks = ManyTasks(parts, [network.vision], config).double()
    return made


def learnt(settings: Any, pieces: int) -> tuple[list[Outcome], list[Tensor]]:
    """What some steps say, and the parameters after them."""
    objective = many(settings, "image_text", "masked_image")
    descent, said = torch.optim.SGD(objective.parameters(), lr=0.01), []
    for step in range(3):
        objective.zero_grad()
        said.append(backward(objective, wide(batch(8, seed=step)), pieces, nullcontext))
        descent.step()
        objective.after_step()
    return said, [one.detach() for one in objective.parameters()]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_pieces_say_and_teach_what_the_whole_batch_does(settings: Any) -> None:
    whole, numbers = learnt(settings, 1)

    for pieces in (2, 4):
        said, found = learnt(settings, pieces)
        torch.testing.assert_close(found, numbers, rtol=1e-6, atol=1e-9)
        for one, other in zip(said, whole, strict=True):
            assert float(one.loss) == pytest.approx(float(other.loss), rel=1e-6)
            assert one.metrics.keys() == other.metrics.keys()
            for name in ("image_text/loss", "masked_image/loss", "image_text/weight"):
                if name in one.metrics:
                    assert float(one.metrics[name]) == pytest.approx(
                        float(other.metrics[name]), rel=1e-6
                    )


def test_an_objective_that_must_see_a_whole_batch_is_named_under_tasks_too() -> None:
    assert indivisible(many({}, "image_text", "latent_action")) == ["latent_action"]
    assert indivisible(many({}, "image_text", "masked_image")) == []
