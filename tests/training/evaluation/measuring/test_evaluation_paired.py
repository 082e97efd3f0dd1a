"""Two standard errors of a mean of paired differences, by groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_train.evaluation.measuring.context import NothingToMeasure
from tectum_train.evaluation.measuring.paired import beside, two_errors


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=20))
def test_groups_of_one_have_the_standard_error_of_a_mean(values: list[float]) -> None:
    found = two_errors(np.array(values), np.arange(len(values)))

    expected = 2 * np.std(values, ddof=1) / len(values) ** 0.5
    assert found == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=9), st.integers(1, 5))
def test_what_is_said_again_and_again_counts_once(values: list[float], times: int) -> None:
    groups = np.arange(len(values))

    found = two_errors(np.repeat(values, times), np.repeat(groups, times))

    assert found == pytest.approx(two_errors(np.array(values), groups), abs=1e-9)


def test_it_is_what_drawing_groups_anew_gives() -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 9, 60)
    groups = np.repeat(np.arange(60), sizes)
    values = draw.normal(size=60)[groups] + 0.5 * draw.normal(size=len(groups))
    members = [np.flatnonzero(groups == one) for one in range(60)]

    means = [
        values[np.concatenate([members[i] for i in draw.integers(60, size=60)])].mean()
        for _ in range(4000)
    ]

    assert two_errors(values, groups) == pytest.approx(2 * np.std(means), rel=0.06)


def test_one_group_alone_says_nothing() -> None:
    with pytest.raises(NothingToMeasure, match="one episode alone"):
        two_errors(np.ones(3), np.zeros(3, np.int64))


def test_beside_ones_own_stand_the_means_of_others_and_how_far_the_differences_may_stray() -> None:
    own, groups = np.array([1.0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])
    others = {"chance": np.full(6, 0.5), "other": np.array([0.0, 0, 1, 1, 1, 1])}

    found = beside(own, others, groups)
    alone = beside(own, others, np.zeros(6, np.int64))

    assert found.controls == alone.controls == {"chance": 0.5, "other": pytest.approx(2 / 3)}
    assert found.errors == {name: two_errors(own - one, groups) for name, one in others.items()}
    assert found.errors["chance"] != found.errors["other"]
    assert alone.errors == {}
