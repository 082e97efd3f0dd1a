"""Objectives over two ranks: loss and gradients are those of one rank with the whole batch."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tests.training.ranks import Ranks
from tests.training.tiny import batch, model, tokenizer

from tectum_core.architecture import ActionBinsConfig, ActionConfig
from tectum_train.distributed import average_gradients, rank, world_size
from tectum_train.objectives import Batch, ObjectiveConfig, objective_for

Arrays = dict[str, NDArray[Any]]
READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)


def wide(made: Batch) -> Batch:
    """The same in float64."""
    for one in fields(made):
        value = getattr(made, one.name)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            setattr(made, one.name, value.double())
    return made


def learnt(kind: str, settings: dict[str, Any]) -> Arrays:
    """Loss and gradients of this rank's rows of a batch in which ever less of a chunk is real."""
    bins = ActionBinsConfig(count=8)
    actions = ActionConfig(dimensions=4, state_dimensions=4, max_steps=8, bins=bins)
    network = model(actions=actions.model_dump()).double()
    objective = objective_for(
        READ.validate_python({"kind": kind, **settings}), network, tokenizer()
    )
    padded = torch.arange(8)[None] >= torch.arange(8, 0, -1)[:, None]
    own = 8 // world_size()
    made = wide(batch(padded=padded)).part(rank() * own, (rank() + 1) * own)
    loss = objective(made).loss
    loss.backward()
    average_gradients(network.parameters())
    reached = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return {"loss": loss.detach().numpy(), "gradient": torch.cat(reached).numpy()}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("masked_image", {"text_share": 1.0}),
        ("masked_image", {"mask": {"kind": "importance", "ratios": (0.3, 0.5, 0.8)}}),
        ("masked_language", {"ratio": 0.4}),
        ("masked_action", {}),
        ("masked_action", {"loss": "cross_entropy"}),
        ("action_prediction", {}),
        ("action_prediction", {"loss": "cross_entropy"}),
    ],
)
def test_two_ranks_with_half_a_batch_each_learn_what_one_does(
    ranks: Ranks, kind: str, settings: dict[str, Any]
) -> None:
    both = ranks.run(learnt, kind=kind, settings=settings)

    alone = learnt(kind, settings)
    assert np.isclose(np.mean([one["loss"] for one in both]), alone["loss"], rtol=1e-6)
    largest = np.abs(alone["gradient"]).max()
    for one in both:
        assert np.abs(one["gradient"] - alone["gradient"]).max() <= 1e-6 * largest
