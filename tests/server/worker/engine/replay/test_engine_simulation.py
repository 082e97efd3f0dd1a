"""Arrivals before the policy: what becomes of each, without a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Batching, Reason
from tectum_server.worker.engine.policy.cost import Cost, CostModel
from tectum_server.worker.engine.replay.arrivals import Arrival, Told
from tectum_server.worker.engine.replay.simulation import simulate

CONTROL, INTERACTIVE, BULK = 1, 2, 3
COST = Cost(4, 2)


def takes(_: Hashable, size: int) -> float:
    return COST.of(size)


def day(arrivals: Sequence[Arrival], max_batch: int = 4, max_queued: int = 100) -> list[Told]:
    return simulate(Batching(max_queued, max_batch, lambda _: COST), arrivals, takes)


def one(
    at_ms: int,
    priority: int = INTERACTIVE,
    patience_ms: int = 1000,
    leaves_after_ms: int | None = None,
) -> Arrival:
    return Arrival(at_ms, ("a",), priority, patience_ms, leaves_after_ms)


def test_who_comes_to_a_free_engine_is_answered_after_what_it_costs() -> None:
    assert [told.latency_ms for told in day([one(3), one(100)])] == [6, 6]


def test_who_comes_while_it_computes_runs_together_in_the_next_batch() -> None:
    found = day([one(0), one(1), one(2)])

    assert [told.answered_ms for told in found] == [6, 14, 14]  # 4 + 2, then 4 + 2 · 2


def test_a_request_is_answered_with_the_last_of_its_items() -> None:
    (told,) = day([Arrival(0, ("a", "b"), INTERACTIVE, 1000)])

    assert told.answered_ms == 12
    assert told.in_time


def test_what_is_refused_says_why_and_what_expires_too() -> None:
    believed: dict[Hashable, Cost] = {"a": Cost(0, 1)}  # which is wrong
    waiting = Batching(100, 1, believed.get)

    found = simulate(waiting, [one(0), one(1, patience_ms=5), one(2, patience_ms=0)], takes)

    assert [told.reason for told in found] == [None, Reason.DEADLINE_PASSED, Reason.DEADLINE_PASSED]
    assert [told.in_time for told in found] == [True, False, False]


def test_who_has_left_is_neither_answered_nor_computed() -> None:
    found = day([one(0), one(1, leaves_after_ms=2), one(2)])

    assert [told.answered_ms for told in found] == [6, None, 12]


def test_arrivals_come_in_order() -> None:
    with pytest.raises(ValueError, match="an arrival at 3 ms comes after one at 5 ms"):
        day([one(5), one(3)])


def test_costs_may_be_learnt_on_the_way() -> None:
    costs = CostModel()
    policy = Batching(100, 4, costs.cost)

    found = simulate(policy, [one(0), one(50, patience_ms=5)], takes, costs.observe)

    assert costs.cost("a") == Cost(0, 6)
    assert found[1].reason is Reason.DEADLINE_INFEASIBLE


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50),
            st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple),
            st.sampled_from([CONTROL, INTERACTIVE, BULK]),
            st.integers(0, 100),
            st.none() | st.integers(0, 60),
        ),
        max_size=30,
    ).map(lambda rows: [Arrival(*row) for row in sorted(rows, key=lambda row: row[0])]),
    st.integers(1, 4),
    st.integers(1, 20),
)
def test_each_is_answered_refused_expired_or_gone_and_the_engine_does_one_thing_at_a_time(
    arrivals: list[Arrival], max_batch: int, max_queued: int
) -> None:
    found = day(arrivals, max_batch, max_queued)

    assert [told.arrival for told in found] == arrivals
    for told in found:
        latency = told.latency_ms
        assert (latency is None) or (told.reason is None and latency >= COST.of(1))
        gone = told.arrival.leaves_after_ms
        assert latency is not None or told.reason is not None or gone is not None
        # Costs are known to it, so what it takes on it answers in time, unless others overtake.
        if told.arrival.priority == CONTROL and latency is not None and gone is None:
            others = [
                one for one in arrivals if one.priority == CONTROL and one is not told.arrival
            ]
            assert others or told.in_time
    ends = Counter(told.answered_ms for told in found if told.answered_ms is not None)
    assert all(count <= max_batch for count in ends.values())
