"""SimCLR: which views are compared, by what, and how much of a batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.training.tiny import batch, model
from torch import Tensor, nn
from torch.nn import functional as F

from tectum_train.objectives import Batch
from tectum_train.objectives.sim_clr import SimClr, SimClrConfig


def built(**settings: Any) -> SimClr:
    torch.manual_seed(0)
    return SimClr(SimClrConfig(**{"hidden": 16, "width": 8, **settings}), model())


def views(made: Batch) -> Tensor:
    assert made.views is not None
    return made.views


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_the_loss_and_its_gradient_are_their_formulas(temperature: float) -> None:
    objective, made = built(temperature=temperature).double(), batch(6)
    made.views = views(made).double()

    outcome = objective(made)

    # NT-Xent (arXiv:2002.05709), the first views of all pictures and then the second ones.
    pictures = torch.cat([made.views[:, 0], made.views[:, 1]])
    vectors = objective.projector(objective.model.vision(pictures).pooled)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    likeness = vectors @ vectors.t() / temperature
    likeness = likeness.masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    partner = torch.arange(12).roll(6)
    wanted = F.cross_entropy(likeness, partner)
    assert outcome.loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    hits = likeness.argmax(dim=1) == partner
    assert float(outcome.metrics["accuracy"]) == pytest.approx(float(hits.double().mean()))
    assert float(outcome.metrics["accuracy"]) != 0.5
    assert outcome.chance == pytest.approx(math.log(11))
    parts = [*objective.model.vision.parameters(), *objective.projector.parameters()]
    found, expected = (torch.autograd.grad(one, parts) for one in (outcome.loss, wanted))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-12)


def test_the_order_of_views_and_of_pictures_does_not_matter() -> None:
    objective, made = built(), batch(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])

    loss = objective(made).loss

    assert torch.isclose(objective(batch(6, views=views(made).flip(1))).loss, loss)
    assert torch.isclose(objective(batch(6, views=views(made)[order])).loss, loss)


def test_only_its_share_of_the_batch_is_used() -> None:
    objective, made, other = built(fraction=0.5), batch(8), batch(8)
    views(other)[4:] += 1.0

    assert torch.equal(objective(made).loss, objective(other).loss)
    assert not torch.equal(built()(made).loss, built()(other).loss)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_projector_is_as_deep_and_wide_as_the_recipe_says(layers: int) -> None:
    projector = built(layers=layers, hidden=24).projector

    shapes = [tuple(one.weight.shape) for one in projector.modules() if isinstance(one, nn.Linear)]
    width = model().config.vision.transformer.width
    assert shapes == ([(8, width)] if layers == 1 else [(24, width), (24, 24), (8, 24)])
