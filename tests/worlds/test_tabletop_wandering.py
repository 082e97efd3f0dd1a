"""Wandering: drawn displacements in some stretches of an episode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabletop.plan import EpisodeKey
from tabletop.wandering import STRETCH, draw_wandering

KEYS = st.builds(
    EpisodeKey, st.integers(0, 99), st.just("train"), st.integers(0, 13), st.integers(0, 99)
)


@given(KEYS, st.integers(1, 200))
def test_a_displacement_lasts_a_stretch_and_stays_within_what_the_hand_can_do(
    key: EpisodeKey, steps: int
) -> None:
    wanders, displacements = draw_wandering(key, 0, 0.5, steps)

    assert wanders.shape == (steps,)
    assert displacements.shape == (steps, 3)
    assert (np.abs(displacements) <= 1).all()
    for start in range(0, steps, STRETCH):
        assert np.ptp(wanders[start : start + STRETCH].astype(int)) == 0
        assert np.ptp(displacements[start : start + STRETCH], axis=0).max() == 0


@given(KEYS)
def test_nothing_wanders_at_no_share_and_all_of_it_at_a_whole_one(key: EpisodeKey) -> None:
    assert not draw_wandering(key, 0, 0.0, 100)[0].any()
    assert draw_wandering(key, 0, 1.0, 100)[0].all()


def test_stretches_wander_as_often_as_asked_and_every_way_alike() -> None:
    key = EpisodeKey(0, "train", 0, 0)

    wanders, displacements = draw_wandering(key, 0, 0.7, 20_000 * STRETCH)

    assert wanders.mean() == pytest.approx(0.7, abs=0.02)
    assert displacements.mean(axis=0) == pytest.approx(np.zeros(3), abs=0.03)
    # Half of them of variance 1/3, half of 1/9.
    assert displacements.std(axis=0) == pytest.approx(np.full(3, (2 / 9) ** 0.5), abs=0.02)
    fast = (np.abs(displacements[::STRETCH]).max(axis=1) > 0.5).mean()
    assert fast == pytest.approx((7 / 8 + 5 / 16) / 2, abs=0.02)


def test_where_it_goes_depends_on_the_attempt_and_not_on_how_often() -> None:
    key = EpisodeKey(0, "train", 0, 0)

    rarely, often, again = (
        draw_wandering(key, attempt, share, 100)[1]
        for attempt, share in ((0, 0.1), (0, 0.9), (1, 0.1))
    )

    np.testing.assert_array_equal(rarely, often)
    assert (rarely != again).any()
