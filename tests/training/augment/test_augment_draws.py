"""Draws: of a sample and nothing else, uniform, and with nothing in common."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tectum_train.augment import Draws

MANY = 20_000
SEEDS = st.integers(0, 2**63 - 1)


def many(seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(seed, np.full(MANY, epoch), np.arange(MANY))


@given(SEEDS, st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.integers(0, 99))
def test_a_samples_numbers_are_its_own_wherever_it_stands(
    seed: int, places: list[int], epoch: int
) -> None:
    index = np.array(places)
    together = Draws(seed, np.full_like(index, epoch), index).uniform("colour", 3)

    for row, place in enumerate(places):
        alone = Draws(seed, np.array([epoch]), np.array([place])).uniform("colour", 3)
        assert alone[0].equal(together[row])


@given(SEEDS)
def test_numbers_are_uniform(seed: int) -> None:
    numbers = many(seed).uniform("zoom", 2).numpy()

    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.reshape(-1), "uniform").pvalue > 1e-6


def test_neighbours_purposes_epochs_and_seeds_have_nothing_in_common() -> None:
    base = many().uniform("zoom", 2).numpy()
    others = {
        "the next sample": np.roll(base[:, 0], 1),
        "the second number": base[:, 1],
        "another purpose": many().uniform("hue").numpy()[:, 0],
        "the next epoch": many(epoch=1).uniform("zoom").numpy()[:, 0],
        "another seed": many(seed=1).uniform("zoom").numpy()[:, 0],
    }

    for name, other in others.items():
        assert abs(np.corrcoef(base[:, 0], other)[0, 1]) < 4 / MANY**0.5, name
        assert not np.isin(base[:, 0], other).any() or name == "the next sample", name


def test_ranges_and_shares_are_what_was_asked_for() -> None:
    between, chosen = many().between("shift", -3, 5, 2), many().chosen("grey", 0.2)

    assert between.min() >= -3
    assert between.max() < 5
    assert abs(float(between.mean()) - 1) < 0.1
    assert abs(float(chosen.double().mean()) - 0.2) < 0.02
    assert many().chosen("grey", 1.0).all()
    assert not many().chosen("grey", 0.0).any()


@given(SEEDS)
def test_normal_numbers_are_normal_and_apart(seed: int) -> None:
    numbers = many(seed).normal("noise", 2).numpy()

    assert np.isfinite(numbers).all()
    assert stats.kstest(numbers.reshape(-1), "norm").pvalue > 1e-6
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 6 / MANY**0.5
