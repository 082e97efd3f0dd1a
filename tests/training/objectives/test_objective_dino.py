"""Self-distillation: what the teacher is, what is hidden, and what collapse looks like."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import vision
from tests.training.tiny import batch, model
from torch import Generator, nn
from torch.testing import assert_close

from tectum_train.engine.optimiser import optimiser_for
from tectum_train.objectives.dino import Dino, DinoConfig, masks_of
from tectum_train.recipe import OptimiserConfig

K = 16
EVERYTHING: list[dict[str, Any]] = [
    {},
    {"centring": "sinkhorn_knopp", "patch_head": "own"},
    {"patch_weight": 0, "koleo_weight": 0},
    {"batch_norm": True, "centring": "sinkhorn_knopp"},
]


def dino(**changes: Any) -> Dino:
    """A small one, drawn alike each time."""
    given_ = {"prototypes": K, "hidden": 32, "bottleneck": 8, **changes}
    network = model(vision=vision(class_token=True, pooling="class"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Dino(DinoConfig.model_validate(given_), network)


def stepped(learnt: Dino, adam: torch.optim.Optimizer, seed: int) -> dict[str, torch.Tensor]:
    """One step on a batch of its own; gives its metrics and the loss."""
    outcome = learnt(batch(8, seed=seed))
    adam.zero_grad()
    outcome.loss.backward()
    adam.step()
    learnt.after_step()
    return {**outcome.metrics, "loss": outcome.loss.detach()}


def adam_of(learnt: Dino) -> torch.optim.Optimizer:
    return optimiser_for(learnt, OptimiserConfig(lr=1e-3))


# ---------------------------------------------------------------- the loss


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    outcome = dino(patch_weight=0.3, koleo_weight=0.2)(batch())

    terms = outcome.metrics
    wanted = terms["views"] + 0.3 * terms["patches"] + 0.2 * 2 * terms["koleo"]
    assert_close(outcome.loss.detach(), wanted)


def test_what_has_no_weight_is_not_computed() -> None:
    outcome = dino(patch_weight=0, koleo_weight=0)(batch())

    assert not {"patches", "koleo"} & outcome.metrics.keys()
    assert_close(outcome.loss.detach(), outcome.metrics["views"])


@pytest.mark.parametrize("settings", EVERYTHING)
def test_it_begins_near_the_logarithm_of_the_prototypes(settings: dict[str, Any]) -> None:
    metrics = dino(bottleneck=128, **settings)(batch()).metrics  # random vectors at right angles

    assert 0.9 < metrics["relative"] < 1.3
    assert 0 < metrics["teacher_entropy"] < math.log(K)
    assert metrics["teacher_entropy"] <= metrics["marginal_entropy"] <= math.log(K)
    assert_close(metrics["divergence"], metrics["views"] - metrics["teacher_entropy"])
    assert ("centre_norm" in metrics) == (settings.get("centring", "mean") == "mean")


def test_a_batch_without_small_views_is_learnt_from_too() -> None:
    none = torch.zeros(8, 0, 3, 16, 16)

    outcome = dino(patch_weight=0, koleo_weight=0)(batch(crops=none))

    assert torch.isfinite(outcome.loss)
    assert outcome.loss != dino(patch_weight=0, koleo_weight=0)(batch()).loss


def test_a_fraction_of_the_batch_is_the_first_so_many_samples() -> None:
    part = dino(fraction=0.5, patch_weight=0)(batch(8)).loss
    whole = dino(patch_weight=0)(batch(8).part(0, 4)).loss

    assert_close(part, whole)


def test_views_are_asked_for() -> None:
    with pytest.raises(ValueError, match="made without views"):
        dino()(batch(views=None))


@pytest.mark.parametrize("settings", EVERYTHING)
def test_a_teacher_that_is_only_asked_stays_as_it_is(settings: dict[str, Any]) -> None:
    learnt = dino(**settings)
    stepped(learnt, adam_of(learnt), 0)
    before = copy.deepcopy(learnt.state_dict())

    pictures, patches = learnt.teach(batch(8).earlier, Generator().manual_seed(0))
    learnt.after_step()

    assert pictures.shape == (8, K)
    assert (patches is None) == (learnt.config.patch_weight == 0)
    if patches is not None:
        assert_close(patches.sum(dim=1), torch.ones(len(patches)))
    assert_close(pictures.sum(dim=1), torch.ones(8))
    assert torch.equal(learnt.view_centre, before["view_centre"])
    assert torch.equal(learnt.patch_centre, before["patch_centre"])


# ---------------------------------------------------------------- collapse


def test_a_teacher_that_tells_nothing_apart_is_seen() -> None:
    learnt = dino()
    for network in (learnt.student, learnt.teacher.copy):
        nn.init.ones_(network.of_views.directions)

    metrics = learnt(batch()).metrics

    for term in ("views", "patches", "teacher_entropy", "marginal_entropy"):
        assert float(metrics[term]) == pytest.approx(math.log(K), rel=1e-4, abs=1e-4)
    assert_close(metrics["relative"], torch.tensor(1.0), rtol=1e-4, atol=1e-4)


def test_a_teacher_that_says_the_same_of_everything_is_seen() -> None:
    learnt = dino(teacher_temperature=(0.01, 0.01))
    for network in (learnt.student, learnt.teacher.copy):
        last = network.of_views.perceptron[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(network.of_views.directions[3])

    metrics = learnt(batch()).metrics

    assert metrics["marginal_entropy"] < 0.1
    assert metrics["koleo"] < 5  # of the trunk's own vectors, which differ


def test_centring_keeps_one_prototype_from_taking_all() -> None:
    learnt = dino(teacher_temperature=(0.04, 0.04), koleo_weight=0)
    adam = optimiser_for(learnt, OptimiserConfig(lr=3e-3))

    spread = [float(stepped(learnt, adam, seed)["marginal_entropy"]) for seed in range(40)]

    assert min(spread[20:]) > 0.3 * math.log(K)


# ---------------------------------------------------------------- the teacher


@pytest.mark.parametrize("settings", EVERYTHING)
def test_the_teacher_is_a_moving_average_that_no_gradient_reaches(settings: Any) -> None:
    learnt = dino(momentum=0.9, **settings)
    adam = adam_of(learnt)
    wanted = {key: value.clone() for key, value in learnt.teacher.copy.state_dict().items()}
    held = {id(one) for group in adam.param_groups for one in group["params"]}

    for seed in range(3):
        stepped(learnt, adam, seed)
        for key, value in learnt.student.state_dict().items():
            wanted[key] = 0.9 * wanted[key] + 0.1 * value

    for key, value in learnt.teacher.copy.state_dict().items():
        assert_close(value, wanted[key], msg=key)
    assert not any(one.requires_grad for one in learnt.teacher.parameters())
    assert not any(id(one) in held for one in learnt.teacher.parameters())


def test_the_teachers_momentum_rises_from_its_first_step_on() -> None:
    learnt = dino(momentum=0.5, momentum_steps=2)
    adam, teacher = adam_of(learnt), learnt.teacher.copy

    for step, kept in enumerate((0.5, 0.75)):
        old = copy.deepcopy(teacher.state_dict())
        stepped(learnt, adam, step)
        for key, new in learnt.student.state_dict().items():
            assert_close(teacher.state_dict()[key], kept * old[key] + (1 - kept) * new, msg=key)


def test_after_the_last_step_of_its_rise_the_teacher_moves_no_more() -> None:
    learnt = dino(momentum=0.5, momentum_steps=2)
    adam = adam_of(learnt)
    for seed in range(2):
        stepped(learnt, adam, seed)
    before = copy.deepcopy(learnt.teacher.state_dict())

    stepped(learnt, adam, 2)

    assert all(torch.equal(before[k], v) for k, v in learnt.teacher.state_dict().items())


def test_the_teachers_temperature_rises_along_a_line() -> None:
    warm: dict[str, Any] = {"teacher_temperature": (0.02, 1.0), "student_temperature": 2.0}
    learnt = dino(**warm, teacher_steps=2, patch_weight=0)
    told = batch()

    found = []
    for _ in range(4):
        found.append(float(learnt(told).metrics["teacher_entropy"]))
        learnt._new["view_centre"].clear()  # the same logits again
        learnt.steps += 1

    assert found[0] < found[1] < found[2]
    assert found[2] == found[3]


def test_centres_follow_after_the_step_not_before() -> None:
    learnt = dino()
    learnt(batch(seed=1))
    still = learnt.view_centre.clone(), learnt.patch_centre.clone()

    learnt.after_step()

    assert not any(centre.any() for centre in still)
    with torch.no_grad():
        whole = batch(seed=1).views
        assert whole is not None
        network = dino().teacher.copy
        said = network.of_views(network.vision(whole.transpose(0, 1).flatten(0, 1)).pooled)
    assert_close(learnt.view_centre, 0.1 * said.mean(dim=0), rtol=1e-4, atol=1e-6)
    assert learnt.patch_centre.any()


# ---------------------------------------------------------------- prototypes


def test_prototypes_stay_where_they_are_in_the_first_steps() -> None:
    learnt = dino(frozen_steps=2)
    adam = adam_of(learnt)
    directions = learnt.student.of_views.directions
    begun = directions.detach().clone()

    for seed in range(2):
        stepped(learnt, adam, seed)
        assert torch.equal(directions, begun)
    stepped(learnt, adam, 2)

    assert not torch.equal(directions, begun)


def test_normed_vectors_have_nothing_in_common() -> None:
    normed, plain = (dino(batch_norm=way).student.of_views for way in (True, False))
    x = torch.randn(16, 32)

    for head, alike in ((normed, True), (plain, False)):
        before = head(x).detach()
        last = head.perceptron[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, 3.0)
        assert torch.allclose(head(x), before, atol=1e-5) == alike


def test_cosines_are_in_float32_whatever_the_autocast() -> None:
    head = dino().student.of_views
    x = torch.randn(4, 32)

    with torch.autocast("cpu", torch.bfloat16):
        found = head(x)

    assert found.dtype == torch.float32
    assert bool((found.abs() <= 1 + 1e-6).all())


# ---------------------------------------------------------------- what is hidden


@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 2**32))
def test_half_of_the_pictures_hide_blocks_of_ratios_from_least_to_most(
    pictures: int, grid: int, seed: int
) -> None:
    hidden = masks_of(pictures, grid, 0.5, (0.1, 0.5), Generator().manual_seed(seed))

    counts = hidden.sum(dim=1)
    assert hidden.shape == (pictures, grid * grid)
    assert int((counts > 0).sum()) == max(1, round(pictures * 0.5))
    some = counts[counts > 0]
    assert bool((some >= max(1, round(0.1 * grid * grid))).all())
    assert bool((some <= round(0.5 * grid * grid)).all())


def test_ratios_are_spread_evenly_over_their_range() -> None:
    hidden = masks_of(10, 20, 1.0, (0.1, 0.5), Generator().manual_seed(0))

    shares = np.sort(hidden.double().mean(dim=1).numpy())
    assert np.all(np.abs(shares - np.linspace(0.12, 0.48, 10)) <= 0.021)


def test_where_a_sample_hides_is_its_own_draw() -> None:
    learnt, made, other = dino(masked_share=1.0), batch(8), batch(8)
    other.seeds[3] += 1

    hidden, elsewhere = (learnt._hidden(one, 8) for one in (made, other))

    rows = (hidden != elsewhere).any(dim=1).unflatten(0, (2, 8))
    assert rows[:, 3].all()
    assert not rows[:, torch.arange(8) != 3].any()
    assert torch.equal(hidden.sum(dim=1), elsewhere.sum(dim=1))
    assert torch.equal(learnt._hidden(made, 8), hidden)


def test_only_students_patches_are_hidden_and_only_those_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learnt = dino()
    asked: list[Any] = []
    learnt.student.vision.register_forward_hook(
        lambda _, args, kwargs, out: asked.append(kwargs.get("replaced")), with_kwargs=True
    )
    told: list[Any] = []
    learnt.teacher.copy.vision.register_forward_hook(
        lambda _, args, kwargs, out: told.append(kwargs.get("replaced")), with_kwargs=True
    )

    learnt(batch())

    assert asked[0].where.shape == (16, 16)
    assert int(asked[0].where.any(dim=1).sum()) == 8
    assert asked[1:] == [None]  # small views whole
    assert told == [None]


def test_the_mask_is_learnt_and_not_decayed() -> None:
    learnt = dino()

    learnt(batch()).loss.backward()

    assert learnt.mask.grad is not None
    assert bool(learnt.mask.grad.any())
    free = optimiser_for(learnt, OptimiserConfig()).param_groups[1]["params"]
    assert any(one is learnt.mask for one in free)


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("settings", EVERYTHING)
def test_what_goes_on_from_a_checkpoint_is_the_same_to_the_last_bit(settings: Any) -> None:
    rising = {
        "momentum_steps": 6,
        "teacher_temperature": (0.04, 0.07),
        "teacher_steps": 6,
        "frozen_steps": 4,
        **settings,
    }
    straight, broken = dino(**rising), dino(**rising)
    one, two = adam_of(straight), adam_of(broken)
    for seed in range(6):
        stepped(straight, one, seed)

    for seed in range(3):
        stepped(broken, two, seed)
    resumed = dino(**rising)
    resumed.load_state_dict(broken.state_dict())
    three = adam_of(resumed)
    three.load_state_dict(two.state_dict())
    for seed in range(3, 6):
        stepped(resumed, three, seed)

    found = resumed.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in straight.state_dict().items())
