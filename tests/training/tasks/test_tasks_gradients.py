"""Gradients of several losses on what they share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tectum_train.tasks.gradients import (
    cosines,
    lengths,
    reached,
    reached_alone,
    task_gradients,
)


def test_each_loss_has_a_row_and_the_graph_stays() -> None:
    shared = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[3.0]]))]
    losses = [shared[0].sum() * 2, shared[0][0] * shared[1].sum()]

    found = task_gradients(losses, shared)
    torch.stack(losses).sum().backward()

    assert found.tolist() == [[2.0, 2.0, 0.0], [3.0, 0.0, 1.0]]
    assert [one.grad.reshape(-1).tolist() for one in shared if one.grad is not None] == [
        [5.0, 2.0],
        [1.0],
    ]


def test_a_loss_that_knows_nothing_of_what_is_shared_has_gradient_zero() -> None:
    shared, own = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    found = task_gradients([own.sum(), torch.zeros(()), shared.sum()], [shared])

    assert found.tolist() == [[0, 0], [0, 0], [1, 1]]
    assert lengths(found)[2].item() == pytest.approx(2**0.5)


def test_opposite_gradients_have_a_cosine_of_minus_one() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])

    found = cosines(gradients, ["a", "b", "c", "none"])

    assert {pair: float(value) for pair, value in found.items()} == {
        "a~b": -1.0,
        "a~c": 0.0,
        "b~c": 0.0,
    }


def test_what_one_loss_alone_reaches_is_told_from_what_several_do() -> None:
    own, other, both, idle = (nn.Parameter(torch.tensor(2.0)) for _ in range(4))
    losses = [own * both + own.exp(), (other.detach() + other) * both, torch.zeros(())]

    found = reached_alone([reached(loss) for loss in losses], [idle, both, other, own])

    assert found == [{id(own)}, {id(other)}, set()]
