"""Who is asked for what is newer, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.asking import (
    NEW_MS,
    PACE_MS,
    Needs,
    affordable,
    again_after,
    ask_after,
    asks_again,
    waits,
)

TIMES = st.floats(0, 1e6)
NEEDS = st.builds(Needs, st.integers(0, 100).map(float), st.booleans())


@given(TIMES)
def test_who_runs_next_is_asked_while_the_batch_before_runs(expected_ms: float) -> None:
    assert 0 <= ask_after(expected_ms) <= expected_ms


def test_of_a_long_batch_the_next_is_asked_shortly_before_its_end() -> None:
    assert ask_after(6000.0) == pytest.approx(5750)
    assert ask_after(100.0) == pytest.approx(50)


def test_of_a_batch_whose_cost_nobody_knows_the_next_is_asked_at_once() -> None:
    assert ask_after(None) == 0


def test_only_the_members_of_short_batches_go_on_giving_what_is_newer() -> None:
    assert asks_again(None)
    assert asks_again(499.0)
    assert not asks_again(500.0)


def test_who_answers_slowly_is_asked_less_often() -> None:
    assert again_after(0.0, 1.0, 1000.0) == PACE_MS
    assert again_after(0.0, 80.0, 1000.0) == 160.0


def test_who_could_not_answer_before_the_end_is_not_asked_if_what_there_is_is_new_enough() -> None:
    assert again_after(0.0, 40.0, 40.0) == PACE_MS
    assert again_after(0.0, 40.0, 39.0) == NEW_MS


@given(st.integers(0, 3_600_000), st.floats(0, 1000), st.integers(0, 3_600_000))
def test_however_long_a_batch_takes_a_place_is_asked_a_bounded_number_of_times(
    runs_ms: int, took_ms: float, expected_ms: int
) -> None:
    asked_ms, times = 0.0, 0
    while asked_ms <= runs_ms:
        times += 1
        asked_ms += again_after(asked_ms, took_ms, max(0.0, expected_ms - asked_ms))

    assert times <= 50
    assert again_after(float(runs_ms), 0.0, 0.0) <= max(NEW_MS, 0.25 * runs_ms)  # nor grows it old


# ---------------------------------------------------------------- as a batch begins


@given(TIMES, TIMES, st.floats(-1e6, 1e6))
def test_a_batch_waits_for_a_twentieth_and_for_nobody_who_would_be_late(
    expected_ms: float, ran_ms: float, spare_ms: float
) -> None:
    found = waits(expected_ms, ran_ms, spare_ms)

    assert 0 <= found <= 0.05 * (expected_ms + ran_ms) + 1e-6
    assert found <= max(0.0, spare_ms)


def test_a_short_batch_does_not_wait_unless_it_follows_a_long_one() -> None:
    assert waits(10.0) == 0
    assert waits(10.0, 1000.0) > 0


def test_a_batch_whose_cost_nobody_knows_does_not_wait() -> None:
    assert waits(None, 1000.0) == 0


# ---------------------------------------------------------------- what can be prepared


def test_who_was_asked_just_now_takes_no_time_from_the_others() -> None:
    assert affordable([Needs(5.0)] * 3, [False, True, True], 9.0) == [False, True, False]


def test_who_needs_nothing_may_be_asked_whatever_is_left() -> None:
    assert affordable([Needs(), Needs(5.0)], [True] * 2, 0.0) == [True, False]


def test_who_lacks_something_is_prepared_before_it_is_asked_anew() -> None:
    assert affordable([Needs(5.0, lacking=True), Needs(5.0)], [True] * 2, 9.0) == [False, False]
    assert affordable([Needs(5.0, lacking=True), Needs(5.0)], [True] * 2, 10.0) == [False, True]


@given(st.lists(st.tuples(NEEDS, st.booleans()), max_size=40), st.integers(0, 2000))
def test_what_is_asked_for_anew_is_prepared_in_what_is_left(
    given_to: list[tuple[Needs, bool]], spare_ms: int
) -> None:
    places, due = [one for one, _ in given_to], [now for _, now in given_to]

    found = affordable(places, due, spare_ms)

    lacking = sum(place.takes_ms for place in places if place.lacking)
    anew = sum(place.takes_ms for place, may in zip(places, found, strict=True) if may)
    assert all(now for now, may in zip(due, found, strict=True) if may)
    assert anew == 0 or anew + lacking <= spare_ms


@given(st.lists(NEEDS, max_size=40), st.integers(0, 2000), st.integers(0, 2000))
def test_with_more_time_nobody_is_asked_before_whom_another_was_not(
    places: list[Needs], spare_ms: int, more_ms: int
) -> None:
    equal, due = [Needs(10.0, place.lacking) for place in places], [True] * len(places)

    found, later = (affordable(equal, due, left) for left in (spare_ms, spare_ms + more_ms))

    assert sum(found) <= sum(later)
    asked = [may for may, place in zip(found, equal, strict=True) if not place.lacking]
    assert asked == sorted(asked, reverse=True)  # in order of service
