"""What is asked of objectives after a run leaves them as they were."""

from __future__ import annotations

import pytest
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


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shown_however_seldom_is_reached(seed: int) -> None:
    network = model()
    config = MaskedActionConfig(image_share=1e-6, text_share=1e-6)
    objective = objective_for(config, network, tokenizer())

    found = unreached(network, objective, [batch(8, seed=seed)])

    assert "vision" not in found
    assert "fusion.from_text" not in found
    assert config.image_share == config.text_share == 1e-6


def test_what_is_never_shown_is_not_reached() -> None:
    network = model()
    objective = objective_for(MaskedActionConfig(image_share=0), network, tokenizer())

    assert "vision" in unreached(network, objective, [batch(8)])
