"""Whether something grows, told from noise."""

import numpy as np
import pytest

from trend import trend


def test_a_straight_line_has_its_slope_and_no_error() -> None:
    found = trend([3.0 + 0.5 * step for step in range(60)])

    assert found.slope == pytest.approx(0.5)
    assert found.error == pytest.approx(0.0, abs=1e-9)
    assert not found.about_zero
    assert found.told(10) == "+5.00 ± 0.00"


def test_noise_alone_is_about_zero_nineteen_times_of_twenty() -> None:
    dice = np.random.default_rng(0)

    grows = [not trend(list(dice.normal(size=240))).about_zero for _ in range(400)]

    assert 0.005 < np.mean(grows) < 0.07


def test_growth_beyond_its_noise_is_seen() -> None:
    noise = np.random.default_rng(0).normal(size=240)

    assert not trend(list(noise + 0.02 * np.arange(240))).about_zero
    assert trend(list(noise - 0.02 * np.arange(240))).about_zero  # it shrinks


def test_too_few_values_are_refused() -> None:
    with pytest.raises(ValueError, match="found 23 values; allowed: at least 24"):
        trend([1.0] * 23)
