"""When calls come: in order, at the rate that was asked for, and the same for the same seed."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from tectum_cli.load.arrivals import PATTERNS, constant, poisson


@given(st.sampled_from(sorted(PATTERNS)), st.floats(0.1, 200), st.floats(0.1, 20), st.integers(0))
def test_calls_come_in_order_and_within_their_time(
    pattern: str, rate: float, seconds: float, seed: int
) -> None:
    when = list(PATTERNS[pattern](rate, seconds, random.Random(seed)))

    assert all(0 <= at < seconds for at in when)
    assert all(earlier < later for earlier, later in pairwise(when))
    assert when == list(PATTERNS[pattern](rate, seconds, random.Random(seed)))


def test_a_constant_rate_keeps_time() -> None:
    assert list(constant(4, 1.0, random.Random(0))) == [0.0, 0.25, 0.5, 0.75]


def test_gaps_between_independent_callers_are_exponential() -> None:
    when = list(poisson(50.0, 200.0, random.Random(0)))

    gaps = [later - earlier for earlier, later in pairwise(when)]
    assert len(when) == pytest.approx(10_000, rel=0.03)
    assert kstest(gaps, "expon", args=(0, 1 / 50)).pvalue > 0.01
