"""What is asked of objectives after a run leaves them as they were."""

from __future__ import annotations

import torch
from tests.training.tiny import batch, latent_action, model, tokenizer

from tectum_core.architecture import VqBottleneck
from tectum_train.engine.untrained import unreached
from tectum_train.objectives import objective_for
from tectum_train.objectives.latent_action import LatentActionObjectiveConfig
from tectum_train.objectives.masked_action import MaskedActionConfig


def test_asking_what_is_reached_moves_no_codebook_and_draws_nothing() -> None:
    network = model(latent_action=latent_action(bottleneck=VqBottleneck(codebook_size=16)))
    objective = objective_for(LatentActionObjectiveConfig(), network, tokenizer())
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    found = unreached(network, objective, [batch(8), batch(8, seed=1)])

    after = objective.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(torch.rand(3), expected)
    assert "latent_action" not in found
    assert "joint" in found


def test_a_picture_that_one_step_hides_is_reached_by_another() -> None:
    network = model()
    objective = objective_for(MaskedActionConfig(image_share=0.5), network, tokenizer())

    found = unreached(network, objective, [batch(8, seed=seed) for seed in range(12)])

    assert "vision" not in found
