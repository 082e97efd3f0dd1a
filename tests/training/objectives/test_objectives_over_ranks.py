"""Objectives over two ranks: what they say and remember is what one says of the whole batch."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tests.bundles import stack
from tests.training.ranks import Ranks
from tests.training.tiny import (
    batch,
    code_shape,
    image_tokenizer,
    latent_action,
    model,
    tokenizer,
    video,
)

from tectum_core.architecture import ActionBinsConfig, ActionConfig
from tectum_train.distributed import average_gradients, means, rank, world_size
from tectum_train.objectives import Batch, ObjectiveConfig, objective_for

Arrays = dict[str, NDArray[Any]]
READ: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)


def wide(made: Batch) -> Batch:
    """The same in float64, the clips' ends at other frames each."""
    assert made.clip is not None
    made.clip.inside = torch.arange(4)[None] < 1 + torch.arange(len(made))[:, None] % 4
    for part in (made, made.clip):
        for one in fields(part):
            value = getattr(part, one.name)
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(part, one.name, value.double())
    return made


def learnt(kind: str, settings: dict[str, Any], latent: dict[str, Any] | None = None) -> Arrays:
    """What is learnt, remembered and said of a batch in which ever less of a chunk is real.

    This rank has its samples of it, of which not as many have a later frame as another's.
    """
    bins = ActionBinsConfig(count=8)
    actions = ActionConfig(dimensions=4, state_dimensions=4, max_steps=8, bins=bins)
    parts: dict[str, Any] = {} if latent is None else {"latent_action": latent_action(**latent)}
    network = model(actions=actions.model_dump(), **video(), **parts)
    torch.manual_seed(0)
    config = READ.validate_python({"kind": kind, **settings})
    objective = objective_for(config, network, tokenizer()).double()
    padded = torch.arange(8)[None] >= torch.arange(8, 0, -1)[:, None]
    paired = torch.arange(8) % 3 > 0
    made = wide(batch(padded=padded, paired=paired)).part(rank(), 8, world_size())
    torch.manual_seed(0)  # as a run does before each step
    outcome = objective(made)
    outcome.loss.backward()
    average_gradients(objective.parameters())
    objective.after_step()
    kept = {name: buffer.detach().numpy() for name, buffer in objective.named_buffers()}
    reached = [p.grad.flatten() for p in objective.parameters() if p.grad is not None]
    told = means({key: float(value) for key, value in outcome.metrics.items()}, "cpu")
    said = {f"said {key}": np.array(value) for key, value in told.items()}
    loss = outcome.loss.detach().numpy()
    return {"loss": loss, "gradient": torch.cat(reached).numpy(), **kept, **said}


OWN = {"said shuffled"}
"""What is of each rank's samples by intention: actions are exchanged with a neighbour's."""
TRUNK = {"kind": "transformer", "transformer": stack().model_dump(), "source": "trunk"}


@pytest.mark.parametrize(
    ("kind", "settings", "latent"),
    [
        ("masked_image", {"text_share": 1.0}, None),
        ("masked_image", {"mask": {"kind": "importance", "ratios": (0.3, 0.5, 0.8)}}, None),
        ("masked_image", {"mask": {"kind": "importance", "source": "attention"}}, None),
        ("masked_language", {"ratio": 0.4}, None),
        ("masked_action", {}, None),
        ("masked_action", {"loss": "cross_entropy"}, None),
        ("action_prediction", {}, None),
        ("action_prediction", {"loss": "cross_entropy"}, None),
        ("latent_action", {"decode_weight": 0.5}, {}),
        ("latent_action", {"appearance": "apart"}, {"says": "change"}),
        ("latent_action", {}, {"target": "latents"}),
        ("latent_action", {"encoder": "trained"}, {"target": "latents", "dynamics": TRUNK}),
        ("latent_action", {"decode_weight": 0.5}, {"bottleneck": {"kind": "vq", "codes": 2}}),
        ("latent_action", {}, {"says": "change", "bottleneck": {"kind": "fsq", "codes": 2}}),
        ("beit", {"tokenizer": str(image_tokenizer())}, None),
        ("image_codes", code_shape(), None),
        ("video_mae", {"statistics_weight": 0.3}, None),
        ("video_mae", {"mask": {"kind": "tube", "ratios": (0.5, 0.75)}}, None),
        ("supervised", {"classes": {"task_family": 4}}, None),
        ("cpc", {"temperature": 0.3}, None),
        ("cpc", {"negatives": "same_episode"}, None),
        ("r3m", {}, None),
        ("dino", {"prototypes": 8, "hidden": 16, "bottleneck": 8}, None),
        ("world_model", {}, None),
    ],
)
def test_two_ranks_with_half_a_batch_each_learn_and_say_what_one_does(
    ranks: Ranks, kind: str, settings: dict[str, Any], latent: dict[str, Any] | None
) -> None:
    both = ranks.run(learnt, kind=kind, settings=settings, latent=latent)

    alone = learnt(kind, settings, latent)
    assert np.isclose(np.mean([one["loss"] for one in both]), alone["loss"], rtol=1e-6)
    largest = np.abs(alone["gradient"]).max()
    for one in both:
        assert one.keys() == alone.keys()
        assert np.abs(one["gradient"] - alone["gradient"]).max() <= 1e-6 * largest
        for name in alone.keys() - {"loss", "gradient"} - OWN:
            assert np.allclose(one[name], alone[name], rtol=1e-6, atol=1e-12), name
