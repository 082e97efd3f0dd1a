"""Better than a control: by a percent of it or beyond chance, and than all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tectum_train.evaluation.measuring.better import above, below, beyond

numbers = st.floats(-2, 2)


def test_a_percent_is_what_it_takes() -> None:
    assert above(0.506, 0.5, 0.4)
    assert not above(0.504, 0.5, 0.4)
    assert below(0.494, 0.5, 0.6)
    assert not below(0.496, 0.5, 0.6)


@given(numbers, st.lists(numbers, min_size=1, max_size=4))
def test_what_is_better_is_better_than_each(value: float, controls: list[float]) -> None:
    assert above(value, *controls) == all(above(value, one) for one in (max(controls),))
    assert not above(value, *controls) or value > max(controls)
    assert not below(value, *controls) or value < min(controls)


@given(numbers)
def test_nothing_is_better_than_itself(value: float) -> None:
    assert not above(value, value)
    assert not below(value, value)


def test_beyond_chance_is_every_gain_by_two_standard_errors_and_some_gain() -> None:
    errors = {"pixels": 0.1, "chance": 0.0}

    assert beyond({"pixels": 0.1, "chance": 0.2}, errors)
    assert not beyond({"pixels": 0.09, "chance": 0.2}, errors)
    assert not beyond({"pixels": 0.1, "chance": 0.0}, errors)
