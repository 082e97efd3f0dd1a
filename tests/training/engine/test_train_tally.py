"""Means since the last record: each over the steps that told it."""

from __future__ import annotations

import pytest
import torch

from tectum_train.engine.tally import Tally


def test_a_mean_is_over_the_steps_that_told_the_number() -> None:
    tally = Tally()
    for told in ({"a": 1.0, "both": 1.0}, {"b": 5.0, "both": 2.0}, {"a": 2.0, "both": 6.0}):
        tally.add({name: torch.tensor(value) for name, value in told.items()})

    assert tally.taken("cpu") == {"a": 1.5, "both": 3.0, "b": 5.0}


def test_what_was_taken_is_told_once() -> None:
    tally = Tally()
    tally.add({"a": torch.tensor(1.0)})
    tally.taken("cpu")
    tally.add({"a": torch.tensor(4.0)})

    assert tally.taken("cpu") == {"a": 4.0}
    assert tally.taken("cpu") == {}


def test_a_number_that_goes_on_changing_is_told_as_it_was() -> None:
    tally, scale = Tally(), torch.nn.Parameter(torch.tensor(1.0))
    for _ in range(3):
        tally.add({"scale": scale})
        scale.data.add_(1.0)

    assert tally.taken("cpu") == {"scale": pytest.approx(2.0)}


def test_counts_may_be_whole_numbers() -> None:
    tally = Tally()
    for count in (1, 2):
        tally.add({"count": torch.tensor(count)})

    assert tally.taken("cpu") == {"count": 1.5}
