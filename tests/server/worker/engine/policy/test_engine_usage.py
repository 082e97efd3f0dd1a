"""How much of the engine each class has had of late."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.usage import Usage

CONTROL, INTERACTIVE, BULK = 1, 2, 3


def test_nobody_has_had_anything_at_first() -> None:
    assert Usage().above(BULK, 0) == 0


def test_a_batch_is_divided_among_its_items() -> None:
    usage = Usage()

    usage.ran([CONTROL, INTERACTIVE, INTERACTIVE, BULK], 100, 500)

    assert usage.above(CONTROL, 500) == 0
    assert usage.above(INTERACTIVE, 500) == pytest.approx(0.025)
    assert usage.above(BULK, 500) == pytest.approx(0.075)


def test_who_always_runs_has_all_of_it() -> None:
    usage = Usage()

    for now_ms in range(10, 10_001, 10):
        usage.ran([INTERACTIVE], 10, now_ms)

    assert usage.above(BULK, 10_000) == pytest.approx(1, abs=0.01)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3000),
            st.lists(st.sampled_from([CONTROL, INTERACTIVE, BULK]), min_size=1, max_size=4),
            st.integers(0, 500),
        ),
        max_size=12,
    ).map(lambda ran: sorted(ran, key=lambda one: one[0])),
    st.integers(3000, 5000),
)
def test_each_batch_fades_with_the_time_since_it_ended(
    ran: list[tuple[int, list[int], int]], now_ms: int
) -> None:
    usage = Usage()

    for ended_ms, members, took_ms in ran:
        usage.ran(members, took_ms, ended_ms)

    for priority in (CONTROL, INTERACTIVE, BULK):
        share = math.fsum(
            took_ms * sum(member < priority for member in members) / len(members)
            * math.exp((ended_ms - now_ms) / 1000) / 1000
            for ended_ms, members, took_ms in ran
        )  # fmt: skip
        assert usage.above(priority, now_ms) == pytest.approx(min(share, 1))
