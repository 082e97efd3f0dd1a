"""Self-distillation over ranks: however many there are, one step is learnt and one thing said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundles import vision
from tests.training.ranks import Ranks
from tests.training.tiny import batch, model

from tectum_train.distributed import average_gradients, means, rank, world_size
from tectum_train.objectives import Batch
from tectum_train.objectives.dino import Dino, DinoConfig

Arrays = dict[str, NDArray[Any]]
SAMPLES = 8
EVERYTHING: list[dict[str, Any]] = [
    {"centring": "mean"},
    {"centring": "sinkhorn_knopp", "patch_head": "own"},
    {"patch_weight": 0, "koleo_weight": 0},
    {"masked_share": 1 / 16},
]
"""In the last one, one of sixteen views hides anything, so a rank has no patch to tell of."""


def stepped(settings: dict[str, Any]) -> Arrays:
    """A step on this rank's samples, in float64, and what was said of all."""
    network = model(vision=vision(class_token=True, pooling="class"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = {"prototypes": 16, "hidden": 32, "bottleneck": 8, **settings}
        learnt = Dino(DinoConfig.model_validate(config), network).double()
    outcome = learnt(wide(batch(SAMPLES)).part(rank(), SAMPLES, world_size()))
    outcome.loss.backward()
    average_gradients(learnt.parameters())
    learnt.after_step()
    told = {"loss": outcome.loss.detach(), **outcome.metrics}
    found = {
        name: one.grad.numpy() for name, one in learnt.named_parameters() if one.grad is not None
    }
    kept = {name: one.numpy() for name, one in learnt.named_buffers()}
    said = means({name: float(one) for name, one in told.items()}, "cpu")
    return {**found, **kept, **{f"said {name}": np.array(one) for name, one in said.items()}}


def wide(made: Batch) -> Batch:
    assert made.views is not None
    assert made.crops is not None
    made.views, made.crops = made.views.double(), made.crops.double()
    return made


@pytest.mark.parametrize("settings", EVERYTHING)
def test_a_step_of_two_ranks_is_that_of_one_in_what_it_learns_and_says(
    ranks: Ranks, settings: dict[str, Any]
) -> None:
    alone = stepped(settings)

    for one in ranks.run(stepped, settings=settings):
        assert one.keys() == alone.keys()
        for name, wanted in alone.items():
            least = 1e-6 * max(np.abs(wanted).max(), 1e-9)
            assert np.allclose(one[name], wanted, rtol=1e-6, atol=least), name


def test_where_no_patch_is_asked_about_on_a_rank_the_others_tell_of_theirs(ranks: Ranks) -> None:
    for one in ranks.run(stepped, settings={"masked_share": 1 / 16}):
        assert 0 < float(one["said patch_teacher_entropy"]) < np.log(16)
        assert all(np.isfinite(value).all() for value in one.values())
