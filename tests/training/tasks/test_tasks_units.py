"""What losses are measured in."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from tectum_train.tasks.units import Units

BOTH = torch.tensor([True, True])


def after(
    kind: Literal["none", "initial", "chance"], steps: int, first: list[float]
) -> list[float]:
    """The units after so many steps of these losses, and then one of 0.1 each."""
    units, unknown = Units(2, kind), [None, 0.5]
    for _ in range(steps):
        units.of(torch.tensor(first), BOTH, unknown)
    found: list[float] = units.of(torch.tensor([0.1, 0.1]), BOTH, unknown).tolist()
    return found


def test_without_units_losses_stay_as_they_are() -> None:
    assert after("none", 3, [4.0, 0.2]) == [1.0, 1.0]


def test_the_first_steps_loss_becomes_one() -> None:
    assert after("initial", 10, [4.0, 0.2]) == pytest.approx([4.0, 0.2])


def test_the_first_steps_are_a_mean_until_there_are_ten() -> None:
    assert after("initial", 1, [4.0, 0.3]) == pytest.approx([2.05, 0.2])


def test_chance_is_told_and_else_the_first_steps_count() -> None:
    assert after("chance", 10, [4.0, 0.2]) == pytest.approx([4.0, 0.5])


def test_whose_turn_it_is_not_learns_no_unit() -> None:
    units = Units(2, "initial")
    units.of(torch.tensor([4.0, 0.0]), torch.tensor([True, False]), [None, None])

    found = units.of(torch.tensor([0.0, 2.0]), torch.tensor([False, True]), [None, None])

    assert found.tolist() == [4.0, 2.0]


def test_a_step_in_which_nothing_counted_is_none_of_the_first() -> None:
    units = Units(2, "initial")
    for _ in range(10):
        units.of(torch.tensor([4.0, 0.0]), BOTH, [None, None])

    assert units.of(torch.tensor([4.0, 3.0]), BOTH, [None, None]).tolist() == [4.0, 3.0]


def test_units_go_on_from_their_state() -> None:
    first, second = Units(2, "initial"), Units(2, "initial")
    for _ in range(12):
        first.of(torch.tensor([3.0, 5.0]), BOTH, [None, None])

    second.load_state_dict(first.state_dict())

    assert second.of(torch.zeros(2), BOTH, [None, None]).tolist() == [3.0, 5.0]
