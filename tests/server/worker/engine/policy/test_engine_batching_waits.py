"""Batches that wait for newer frames before they begin: when they may, and what others are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Admitted, Batching, Refused, Waiting
from tectum_server.worker.engine.policy.cost import Cost

CONTROL, INTERACTIVE = 1, 2
COST = Cost(0, 40)
FAR = 10**9


def batching() -> Batching:
    return Batching(100, 1, lambda _: COST)


def place(item: int) -> list[Waiting]:
    return [Waiting(item, "frame", CONTROL, FAR, turn_ms=item)]


def call(item: int, priority: int = INTERACTIVE, deadline_ms: int = FAR) -> list[Waiting]:
    return [Waiting(item, "call", priority, deadline_ms)]


def test_a_batch_of_streams_alone_may_wait() -> None:
    policy = batching()
    policy.admit(place(1), 0)
    policy.admit(place(2), 0)

    policy.next_batch(0)

    assert policy.may_wait(0)


def test_no_batch_may_wait_while_a_call_does() -> None:
    policy = batching()
    policy.admit(place(1), 0)
    policy.admit(call(2), 0)

    policy.next_batch(0)

    assert not policy.may_wait(0)


@pytest.mark.parametrize(("later_ms", "may"), [(9_999, False), (10_000, True)])
def test_no_batch_may_wait_while_control_calls_come(later_ms: int, may: bool) -> None:
    policy = batching()
    policy.admit(call(1, CONTROL), 0)
    policy.next_batch(0)
    policy.idle(40)
    policy.admit(place(2), later_ms)

    policy.next_batch(later_ms)

    assert policy.may_wait(later_ms) is may


@given(st.integers(0, 200), st.integers(1, 300))
def test_a_call_that_comes_while_a_batch_waits_reckons_with_it(
    waits_ms: int, patience_ms: int
) -> None:
    policy = batching()
    policy.admit(place(1), 0)
    policy.next_batch(0)
    policy.delayed(waits_ms)

    verdict = policy.admit(call(2, deadline_ms=patience_ms), 0)

    in_time = waits_ms + 2 * COST.of(1) <= patience_ms
    assert verdict == Admitted() if in_time else isinstance(verdict, Refused)


def test_the_wait_is_over_with_the_batch() -> None:
    policy = batching()
    policy.admit(place(1), 0)
    policy.next_batch(0)
    policy.delayed(100)
    policy.idle(60)

    assert policy.admit(call(2, deadline_ms=100), 60) == Admitted()
