"""What goes before a call: all batches under way, streams that overtake, and how fast that goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Admitted, Batching, Waiting
from tectum_server.worker.engine.policy.cost import Cost

CONTROL, INTERACTIVE, BULK = 1, 2, 3
COST = Cost(10.0, 5.0)
FAR = 10**9


def batching(batches: int, waits_ms: int = 0, kept_share: float = 0.0) -> Batching:
    """With so many full batches under way, the last of which waits before it begins."""
    policy = Batching(100, 2, lambda _: COST, kept_share=kept_share)
    for item in range(2 * batches):
        policy.admit([Waiting(item, "key", INTERACTIVE, FAR, item)], 0)
    for _ in range(batches):
        policy.next_batch(0)
    if batches:
        policy.delayed(waits_ms)
    return policy


def call(item: int, priority: int = INTERACTIVE, deadline_ms: int = FAR) -> list[Waiting]:
    return [Waiting(item, "key", priority, deadline_ms, item)]


def test_before_a_free_engine_nothing_goes() -> None:
    ahead = batching(0).ahead(INTERACTIVE, FAR, 0)

    assert (ahead.first_ms, ahead.keys, ahead.speed) == (0, {}, 1.0)


@given(st.integers(0, 2), st.integers(0, 300))
def test_what_runs_and_what_it_waits_go_before_a_call(batches: int, waits_ms: int) -> None:
    policy = batching(batches, waits_ms)

    ahead = policy.ahead(INTERACTIVE, FAR, 0)

    assert ahead.first_ms == batches * COST.of(2) + (waits_ms if batches else 0)


@given(st.integers(0, 2), st.integers(0, 300), st.integers(1, 500))
def test_what_is_told_of_what_goes_before_is_what_admission_goes_by(
    batches: int, waits_ms: int, patience_ms: int
) -> None:
    policy = batching(batches, waits_ms)
    first_ms = policy.ahead(INTERACTIVE, patience_ms, 0).first_ms

    admitted = policy.admit(call(99, deadline_ms=patience_ms), 0) == Admitted()

    assert admitted is (first_ms + COST.of(1) <= patience_ms)


def test_of_those_who_wait_only_who_goes_first_is_counted() -> None:
    policy = batching(1)
    policy.admit(call(10, CONTROL), 0)
    policy.admit(call(11, deadline_ms=500), 0)
    policy.admit(call(12, BULK), 0)

    counts = [
        policy.ahead(priority, deadline_ms, 0).keys["key"]
        for priority, deadline_ms in ((CONTROL, FAR), (INTERACTIVE, 100), (INTERACTIVE, FAR))
    ]

    assert counts == [1, 1, 2]


def test_who_waits_can_count_on_what_lower_classes_do_not_keep() -> None:
    policy = batching(0, kept_share=0.05)
    policy.admit(call(10, BULK), 0)

    speeds = [policy.ahead(priority, FAR, 0).speed for priority in (CONTROL, INTERACTIVE, BULK)]

    assert speeds == [1.0, 0.95, 1.0]
