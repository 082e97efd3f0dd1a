"""The optimiser: what is decayed, and how the learning rate moves."""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import stack, vision
from tests.training.tiny import batch, job, model
from torch import Tensor, nn

from tectum_core.architecture import JointConfig
from tectum_core.model import VisionTransformer
from tectum_train.engine.accumulation import backward
from tectum_train.engine.optimiser import learning_rate, optimiser_for
from tectum_train.engine.stepping import take_step
from tectum_train.heads import perceptron
from tectum_train.objectives import WeightedSum, objective_for
from tectum_train.objectives.image_text import ImageTextConfig
from tectum_train.objectives.masked_image import MaskedImageConfig
from tectum_train.recipe import OptimiserConfig, ScheduleConfig
from tectum_train.tasks.sharing import Stitched

FREE = re.compile(
    r"bias$|norm|positions$|queries$|tokens?$|hidden$|modality\.|log_scale$|scale[12]$|text\.embed|"
    r"pool\.\w*(query|probe)|token_head\.2|places$|moments$"
)
"""Everything that is no matrix of a linear map; the token head's third layer is a norm."""


def groups(module: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the decayed and of the free parameters."""
    adam = optimiser_for(module, OptimiserConfig(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decayed, free = (
        {names[id(parameter)] for parameter in group["params"]} for group in adam.param_groups
    )
    assert [group["weight_decay"] for group in adam.param_groups] == [0.3, 0.0]
    return decayed, free


@pytest.mark.parametrize("pooling", ["mean", "attention", "class"])
def test_only_the_weights_of_linear_maps_are_decayed(pooling: str) -> None:
    trunk = vision(
        transformer=stack(layer_scale=0.1), class_token=True, registers=2, pooling=pooling,
        input_norm=True,
    )  # fmt: skip
    network = model(vision=trunk, joint=JointConfig(width=16, bias=-10.0))

    decayed, free = groups(network)

    assert decayed | free == {name for name, _ in network.named_parameters()}
    assert not decayed & free
    assert {name for name in decayed | free if FREE.search(name)} == free
    linear = {
        f"{name}.weight" for name, part in network.named_modules() if isinstance(part, nn.Linear)
    }
    assert linear <= decayed


def test_a_map_to_one_number_is_decayed_as_others_are() -> None:
    decayed, free = groups(perceptron(8, 4, 1, 2))

    assert decayed == {"0.weight", "3.weight"}
    assert free == {"0.bias", "1.weight", "1.bias", "3.bias"}


def test_mixtures_of_trunks_are_not_decayed() -> None:
    trunk = VisionTransformer(vision(transformer=stack(depth=2)))

    decayed, free = groups(Stitched(trunk, 2, 0.9))

    assert "units" in free
    assert "trunks.1.embed.weight" in decayed


def test_what_the_model_learns_without_linear_maps_is_there_to_be_found() -> None:
    _, free = groups(model(vision=vision(class_token=True)))

    for name in (
        "joint.log_scale", "text.embed.weight", "vision.positions", "vision.prefix_tokens",
        "pixel_decoder.mask_token", "latent_action.dynamics.queries", "fusion.actions.hidden",
        "fusion.modality.image", "vision.final_norm.weight", "fusion.action_head.bias",
    ):  # fmt: skip
        assert name in free, name


def test_a_model_that_many_objectives_share_is_stepped_once() -> None:
    network = model()
    objectives = [
        (1.0, objective_for(ImageTextConfig(), network, None)),
        (1.0, objective_for(MaskedImageConfig(), network, None)),
    ]

    adam = optimiser_for(WeightedSum(objectives), OptimiserConfig())

    held = [id(parameter) for group in adam.param_groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in network.parameters()}


def test_frozen_parameters_are_left_out() -> None:
    network = nn.Linear(3, 3)
    network.weight.requires_grad_(False)

    adam = optimiser_for(network, OptimiserConfig())

    assert [len(group["params"]) for group in adam.param_groups] == [0, 1]


def test_decay_draws_weights_and_nothing_else_to_zero() -> None:
    network = nn.Linear(4, 4)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    adam = optimiser_for(network, OptimiserConfig(lr=0.1, weight_decay=0.5))

    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    adam.step()

    assert torch.allclose(network.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(network.bias, before["bias"])


def test_settings_reach_adam() -> None:
    adam = optimiser_for(nn.Linear(2, 2), OptimiserConfig(lr=0.02, betas=(0.8, 0.9), eps=1e-6))

    assert {group["lr"] for group in adam.param_groups} == {0.02}
    assert {group["betas"] for group in adam.param_groups} == {(0.8, 0.9)}
    assert {group["eps"] for group in adam.param_groups} == {1e-6}


@pytest.mark.parametrize("longest", [None, 0.01])
def test_gradients_are_as_long_as_they_are_or_as_the_recipe_allows(longest: float | None) -> None:
    masked = [{"kind": "masked_image"}]
    settings = {"clip_norm": longest, "lr": 1e-3}
    recipe = job(Path(), Path(), objectives=masked, optimiser=settings)
    objective = WeightedSum([(1.0, objective_for(MaskedImageConfig(), model(), None))])
    backward(objective, batch(), 1, nullcontext)
    wanted = math.sqrt(sum(float(one.square().sum()) for one in gradients(objective)))

    adam = optimiser_for(objective, recipe.optimiser)
    _, told = take_step(0, batch(), objective, adam, 1e-3, recipe, 1)

    length = math.sqrt(sum(float(one.square().sum()) for one in gradients(objective)))
    assert told == pytest.approx(wanted, rel=1e-4)
    assert length == pytest.approx(wanted if longest is None else longest, rel=1e-3)


def gradients(module: nn.Module) -> list[Tensor]:
    return [one.grad for one in module.parameters() if one.grad is not None]


# ---------------------------------------------------------------- the learning rate


def schedule(steps: int = 100, warmup: int = 10, final: float = 0.1) -> ScheduleConfig:
    return ScheduleConfig(steps=steps, warmup_steps=warmup, final_share=final)


def test_it_warms_up_in_a_line_to_its_peak() -> None:
    rates = [learning_rate(step, 2.0, schedule(warmup=4)) for step in range(5)]

    assert rates == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_it_falls_along_a_cosine_to_the_final_share() -> None:
    middle, last = (learning_rate(step, 2.0, schedule()) for step in (55, 100))

    assert middle == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert last == pytest.approx(0.2)


def test_the_last_step_is_nearly_at_the_final_share() -> None:
    assert learning_rate(999, 1.0, schedule(steps=1000, final=0.01)) == pytest.approx(
        0.01, abs=1e-5
    )


def test_without_warm_up_it_begins_at_its_peak() -> None:
    assert learning_rate(0, 3.0, schedule(warmup=0)) == 3.0


@given(st.integers(1, 300), st.integers(0, 300), st.floats(0, 1), st.floats(1e-6, 10))
def test_it_rises_to_the_peak_then_never_rises_again(
    more: int, warmup: int, final: float, peak: float
) -> None:
    steps = warmup + more
    plan = schedule(steps, warmup, final)

    rates = [learning_rate(step, peak, plan) for step in range(steps)]

    assert all(0 <= rate <= peak * (1 + 1e-12) for rate in rates)
    rising, falling = rates[:warmup], rates[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert all(rate >= peak * final * (1 - 1e-12) for rate in falling)
