"""One step of the optimiser: what it does beside descending."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tests.training.tiny import batch, job, model, tokenizer
from torch import Tensor, nn

from tectum_core.model import PerceptionModel
from tectum_train.engine.optimiser import optimiser_for
from tectum_train.engine.stepping import take_step
from tectum_train.objectives import (
    Batch,
    Objective,
    ObjectiveConfig,
    Outcome,
    WeightedSum,
    objective_for,
)
from tectum_train.recipe import Recipe
from tectum_train.tasks import ManyTasks, TasksConfig
from tectum_train.tasks.sharing import own_trunks

READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)
KINDS: tuple[dict[str, Any], ...] = (
    {"kind": "image_text"},
    {"kind": "masked_image", "text_share": 0},
)
"""What shares the trunk and nothing else."""
STEPS, RATE = 6, 1e-3


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Gradients of any length, so that trunks together are clipped as one alone is."""
    return job(tmp_path, tmp_path, optimiser={"clip_norm": 1e9})


@pytest.fixture
def clipping(tmp_path: Path) -> Recipe:
    """Gradients as long as they may be by default, which is less than theirs."""
    return job(tmp_path, tmp_path)


def tied(strength: float) -> TasksConfig:
    sharing = {"kind": "distance", "strength": strength, "served": "image_text"}
    return TasksConfig.model_validate({"sharing": sharing})


def judge(kind: dict[str, Any], network: PerceptionModel) -> Objective:
    return objective_for(READ.validate_python(kind), network, tokenizer())


def stepped(objective: WeightedSum | ManyTasks, recipe: Recipe) -> float:
    """Some steps of the engine's own; gives the longest gradient's norm."""
    adam = optimiser_for(objective, recipe.optimiser)
    return max(
        take_step(step, batch(8, seed=step), objective, adam, RATE, recipe, 1)[1]
        for step in range(STEPS)
    )


def numbers(trunk: nn.Module) -> Tensor:
    return torch.cat([one.detach().flatten() for one in trunk.parameters()])


def trunks_after(strength: float, recipe: Recipe) -> list[Tensor]:
    views = own_trunks(model(), 2)
    parts = [(1.0, judge(kind, view)) for kind, view in zip(KINDS, views, strict=True)]
    stepped(ManyTasks(parts, [view.vision for view in views], tied(strength)), recipe)
    return [numbers(view.vision) for view in views]


def test_untied_trunks_learn_as_each_objective_alone_would(clipping: Recipe) -> None:
    found = trunks_after(0.0, clipping)

    for kind, trunk in zip(KINDS, found, strict=True):
        alone = model()
        longest = stepped(WeightedSum([(1.0, judge(kind, alone))]), clipping)
        assert longest > (clipping.optimiser.clip_norm or 0)
        torch.testing.assert_close(trunk, numbers(alone.vision), rtol=0, atol=1e-6)


def test_a_tie_holds_trunks_together_whatever_adam_makes_of_gradients(recipe: Recipe) -> None:
    free, loose, bound = (trunks_after(strength, recipe) for strength in (0.0, 50.0, 1e6))

    apart = [float((one - other).norm()) for one, other in (free, loose, bound)]
    assert torch.equal(*bound)
    assert 0 < apart[1] < 0.9 * apart[0]


class Wants(Objective):
    """Half the squared distance of a trunk's numbers from a place."""

    def __init__(self, name: str, trunk: nn.Linear, place: Tensor) -> None:
        super().__init__()
        self.name = name
        self.trunk = trunk
        self.place = place

    def forward(self, batch: Batch) -> Outcome:
        return Outcome((self.trunk.weight - self.place).square().sum() / 2, {})


def test_bound_trunks_end_where_one_trunk_does_that_all_share(recipe: Recipe) -> None:
    trunk, place = nn.Linear(4, 3, bias=False), torch.randn(3, 4)
    own, shared = [deepcopy(trunk), deepcopy(trunk)], deepcopy(trunk)
    each = [(1.0, Wants(str(i), one, place)) for i, one in enumerate(own)]
    soft = ManyTasks(each, own, tied(1e6))
    hard = ManyTasks([(1.0, Wants(str(i), shared, place)) for i in range(2)], [shared])

    stepped(soft, recipe)
    stepped(hard, recipe)

    assert torch.equal(own[0].weight, own[1].weight)
    torch.testing.assert_close(own[0].weight, shared.weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shared", [False, True])
def test_trunks_apart_are_clipped_each_and_the_norm_told_is_that_of_all(
    clipping: Recipe, shared: bool
) -> None:
    trunks = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    places = [torch.tensor([[300.0]]), torch.tensor([[-400.0]])]
    for trunk in trunks:
        nn.init.zeros_(trunk.weight)
    used = trunks[:1] * 2 if shared else trunks
    parts = [(1.0, Wants(str(i), one, places[i])) for i, one in enumerate(used)]
    many = ManyTasks(parts, trunks, tied(0.0))

    _, norm = take_step(
        0, batch(2), many, optimiser_for(many, clipping.optimiser), RATE, clipping, 1
    )

    grads = [float(one.weight.grad) for one in trunks if one.weight.grad is not None]
    assert norm == pytest.approx(100 if shared else 500)
    assert grads == pytest.approx([1.0] if shared else [-1.0, 1.0])
