"""DINO's teacher on held-out pictures: entropies that tell it from both kinds of collapse."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.bundles import vision
from tests.training.tiny import batch, model
from torch import nn

from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.objectives.teacher import measure_teacher
from tectum_train.losses.distillation import entropy
from tectum_train.objectives.dino import Dino, DinoConfig

K = 16


def dino(seed: int = 0, **settings: object) -> Dino:
    network = model(seed, vision=vision(class_token=True, pooling="class"))
    given = {"prototypes": K, "hidden": 32, "bottleneck": 8, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Dino(DinoConfig.model_validate(given), network).eval()


def collapsed(objective: Dino, *, to: int | None) -> Dino:
    """Its teacher says one prototype of everything, or everything alike."""
    head = objective.teacher.copy.of_views
    with torch.no_grad():
        last = head.perceptron[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(torch.eye(len(last.bias))[0])
        head.directions.zero_()
        if to is None:
            head.directions[:, 0] = 1.0
        else:
            head.directions[:, 0] = -1.0
            head.directions[to, 0] = 1.0
    return objective


def told(objective: Dino) -> list[Measure]:
    return measure_teacher(objective, dino(5), [batch(8), batch(8, seed=1)])


def test_entropies_are_means_over_all_pictures_and_of_their_mean() -> None:
    objective, batches = dino(patch_weight=0), [batch(8), batch(4, seed=1)]
    twin = dino(5, patch_weight=0)

    (view,) = measure_teacher(objective, twin, batches)

    every, random = (
        torch.cat([whose.teach(one.earlier, torch.Generator())[0] for one in batches]).double()
        for whose in (objective, twin)
    )
    assert view.value == pytest.approx(float(entropy(every).mean()))
    assert view.controls["of their mean"] == pytest.approx(float(entropy(every.mean(dim=0))))
    assert view.controls["ln K"] == math.log(K)
    assert view.controls["random-init twin"] == pytest.approx(float(entropy(random).mean()))
    assert view.on == "12 views"


def test_each_batch_is_asked_about_patches_of_its_own() -> None:
    objective, same = dino(), [batch(8), batch(8)]

    _, patch = measure_teacher(objective, dino(5), same)

    said = [
        objective.teach(one.earlier, torch.Generator().manual_seed(seed))[1]
        for seed, one in enumerate(same)
    ]
    assert said[0] is not None
    assert said[1] is not None
    assert not torch.equal(said[0], said[1])
    every = torch.cat([said[0], said[1]]).double()
    assert patch.value == pytest.approx(float(entropy(every).mean()))


@pytest.mark.parametrize("head", ["shared", "own"])
def test_views_and_patches_are_asked_by_their_own_heads(head: str) -> None:
    view, patch = told(dino(patch_head=head))

    assert view.name == "teacher's entropy of a view, nats"
    assert patch.name == "teacher's entropy of a patch, nats"
    assert view.value != patch.value
    for one in (view, patch):
        assert 0 < one.value <= one.controls["of their mean"] <= math.log(K)
        assert one.controls.keys() == {"of their mean", "ln K", "random-init twin"}
        assert one.gate == "above 0, and below that of their mean by ≥ 0.05 ln K"


def test_a_teacher_that_says_everything_alike_fails() -> None:
    view, _ = told(collapsed(dino(), to=None))

    assert view.value == pytest.approx(math.log(K))
    assert view.passed is False


def test_a_teacher_that_says_the_same_of_everything_fails() -> None:
    view, _ = told(collapsed(dino(), to=3))

    assert view.value == pytest.approx(0, abs=1e-6)
    assert view.controls["of their mean"] == pytest.approx(0, abs=1e-6)
    assert view.passed is False


def test_a_teacher_that_tells_pictures_apart_passes() -> None:
    one, other = batch(8), batch(8, seed=1)
    apart = replace(one, earlier=torch.cat([one.earlier[:4] * 3, other.earlier[:4] - 3]))

    view, _ = measure_teacher(dino(teacher_temperature=(0.09, 0.09)), dino(5), [apart])

    assert view.passed is True
