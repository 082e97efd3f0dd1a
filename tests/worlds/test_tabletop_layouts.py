"""Where objects stand: test places are never training places, whatever the seeds."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabletop.families import FAMILIES
from tabletop.layouts import COLUMNS, MARGIN, ROWS, TEST_CELLS, cells, draw_layout
from tabletop.plan import EpisodeKey, episode_keys, generator

seeds = st.integers(0, 2**31)
families = st.integers(0, len(FAMILIES) - 1)
indices = st.integers(0, 200)
attempts = st.integers(0, 20)
splits = st.sampled_from(["train", "test"])


def test_the_splits_share_no_cell_and_together_use_all() -> None:
    train, test = set(cells("train")), set(cells("test"))

    assert test == TEST_CELLS
    assert train.isdisjoint(test)
    assert train | test == set(range(COLUMNS * ROWS))


@given(seeds, splits, families, indices, attempts)
def test_a_layout_lies_in_its_own_cell_and_split(
    seed: int, split: str, family: int, index: int, attempt: int
) -> None:
    place = FAMILIES[family]

    layout = draw_layout(place, EpisodeKey(seed, split, family, index), attempt)

    low, high = np.array(place.low), np.array(place.high)
    column, row = (np.array([layout.x, layout.y]) - low) / (high - low) * (COLUMNS, ROWS)
    assert layout.id in cells(split)
    assert layout.id == int(row) * COLUMNS + int(column)


@given(seeds, seeds, families, indices, indices)
def test_training_and_test_places_keep_a_distance_across_seeds(
    one: int, other: int, family: int, first: int, second: int
) -> None:
    place = FAMILIES[family]
    train = draw_layout(place, EpisodeKey(one, "train", family, first), 0)
    test = draw_layout(place, EpisodeKey(other, "test", family, second), 0)

    cell = (np.array(place.high) - place.low) / (COLUMNS, ROWS)
    gap = np.abs([train.x - test.x, train.y - test.y]) / cell
    assert gap.max() >= 2 * MARGIN - 1e-9


def test_each_cell_is_used_equally_often() -> None:
    keys = [EpisodeKey(3, "train", 0, index) for index in range(24)]

    used = Counter(draw_layout(FAMILIES[0], key, 0).id for key in keys)

    assert used == dict.fromkeys(cells("train"), 2)


@given(seeds, splits, families, indices, attempts)
def test_a_layout_is_a_pure_function_of_key_and_attempt(
    seed: int, split: str, family: int, index: int, attempt: int
) -> None:
    key = EpisodeKey(seed, split, family, index)

    assert draw_layout(FAMILIES[family], key, attempt) == draw_layout(
        FAMILIES[family], key, attempt
    )


def test_a_layout_vector_puts_the_object_where_metaworld_reads_it() -> None:
    drawer, puck = FAMILIES[0], next(f for f in FAMILIES if f.name == "puck-slide")

    assert drawer.layout_vector(0.1, 0.9) == (0.1, 0.9, 0.0)
    assert puck.layout_vector(0.1, 0.9) == (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)


def test_episodes_come_one_of_each_family_in_turn() -> None:
    keys = episode_keys(0, "train", (2, 5), 2)

    assert [(key.family, key.index) for key in keys] == [(2, 0), (5, 0), (2, 1), (5, 1)]


def test_draws_for_different_purposes_are_unrelated() -> None:
    key = EpisodeKey(0, "train", 0, 0)

    assert generator(key, 0, "camera").random() != generator(key, 0, "light").random()


@pytest.mark.parametrize(
    ("split", "purpose", "found"), [("dev", "camera", "'dev'"), ("train", "luck", "'luck'")]
)
def test_an_unknown_split_or_purpose_is_refused(split: str, purpose: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        generator(EpisodeKey(0, split, 0, 0), 0, purpose)
