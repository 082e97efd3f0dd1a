"""Slow copies: a moving average in closed form, and how its momentum rises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tectum_train.momentum import Slow, momentum_at

MOMENTUM = st.floats(0, 1)


class Counted(nn.Module):
    """One weight, and a buffer that goes with it."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.level: torch.Tensor
        self.register_buffer("level", torch.zeros((), dtype=torch.float64))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), MOMENTUM)
def test_after_k_steps_the_copy_is_the_average_in_closed_form(
    weights: list[float], momentum: float
) -> None:
    quick = Counted(1.0)
    slow = Slow(quick)

    for step, weight in enumerate(weights, 1):
        quick.weight.data.fill_(weight)
        quick.steps.fill_(step)
        quick.level.fill_(step / 3)
        slow.follow(quick, momentum)

    k = len(weights)
    shares = [(1 - momentum) * momentum ** (k - step) for step in range(1, k + 1)]
    average = momentum**k * 1.0 + sum(s * w for s, w in zip(shares, weights, strict=True))
    assert math.isclose(
        slow.get_parameter("copy.weight").item(), average, rel_tol=1e-9, abs_tol=1e-9
    )
    assert slow.get_buffer("copy.steps") == k  # buffers are not averaged
    assert slow.get_buffer("copy.level") == k / 3


def test_no_gradient_reaches_the_copy_and_what_it_follows_is_no_part_of_it() -> None:
    quick = Counted(2.0)

    slow = Slow(quick)

    assert not any(one.requires_grad for one in slow.parameters())
    assert quick.weight.requires_grad
    assert list(slow.state_dict()) == ["copy.weight", "copy.steps", "copy.level"]


@given(st.integers(0, 300), st.integers(1, 200), MOMENTUM)
def test_momentum_rises_along_byols_cosine(step: int, steps: int, first: float) -> None:
    expected = 1 - (1 - first) * (math.cos(math.pi * min(step, steps) / steps) + 1) / 2

    assert momentum_at(step, steps, first) == pytest.approx(expected, abs=1e-12)


def test_momentum_goes_from_its_first_value_by_the_middle_to_one() -> None:
    found = [momentum_at(step, 100, 0.9) for step in (0, 50, 100, 1000)]

    assert found == pytest.approx([0.9, 0.95, 1.0, 1.0])
