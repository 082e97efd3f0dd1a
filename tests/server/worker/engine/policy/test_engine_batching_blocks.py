"""How long others may block CONTROL: a limit for while its calls come, and none for who has none.

Time is in whole milliseconds and passed in; nothing here sleeps.
"""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Admitted, Batch, Batching, Waiting
from tectum_server.worker.engine.policy.cost import Cost

CONTROL, INTERACTIVE, BULK = 1, 2, 3
COSTS: dict[Hashable, Cost] = {"a": Cost(10, 5), "b": Cost(0, 7)}
EXPECTED_MS = 10_000
FAR_MS = 10**6


def batching(calls: int | None = None, always: int | None = None, max_batch: int = 8) -> Batching:
    return Batching(1000, max_batch, COSTS.get, always, calls_block_ms=calls)


def call(number: int, priority: int = BULK, key: str = "a") -> Waiting:
    return Waiting(number, key, priority, FAR_MS)


def place(number: int, priority: int = CONTROL, key: str = "a") -> Waiting:
    """A stream's."""
    return Waiting(number, key, priority, FAR_MS, turn_ms=0)


def ask(policy: Batching, *items: Waiting, now_ms: int = 0) -> None:
    for one in items:
        assert policy.admit([one], now_ms) == Admitted()


def sizes(policy: Batching, now_ms: int = 0) -> list[int]:
    """Of the batches that run until nothing waits."""
    found = list[int]()
    while (batch := policy.next_batch(now_ms)) is not None:
        found.append(len(batch.items))
        policy.idle(now_ms)
    return found


def test_while_controls_calls_come_others_batches_stay_within_the_limit() -> None:
    policy = batching(calls=20)
    ask(policy, call(9, CONTROL, "b"), *(call(n) for n in range(8)))

    assert policy.next_batch(0) == Batch("b", (9,))
    policy.idle(7)
    assert sizes(policy, 7) == [2, 2, 2, 2]


def test_ten_seconds_after_the_last_of_them_batches_are_large_again() -> None:
    policy = batching(calls=20)
    ask(policy, call(9, CONTROL, "b"))
    assert sizes(policy) == [1]

    ask(policy, *(call(n) for n in range(4)), now_ms=EXPECTED_MS - 1)
    assert sizes(policy, EXPECTED_MS - 1) == [2, 2]
    ask(policy, *(call(n) for n in range(4)), now_ms=EXPECTED_MS)
    assert sizes(policy, EXPECTED_MS) == [4]


def test_controls_streams_alone_limit_nothing_unless_the_operator_says_so() -> None:
    for policy, wanted in ((batching(calls=20), [1, 4]), (batching(always=20), [1, 2, 2])):
        ask(policy, place(9, key="b"), *(call(n) for n in range(4)))

        assert sizes(policy) == wanted


def test_a_call_that_is_refused_has_come_all_the_same() -> None:
    policy = batching(calls=20)
    late = Waiting(9, "a", CONTROL, deadline_ms=0)

    assert policy.admit([late], 0) != Admitted()
    ask(policy, *(call(n) for n in range(4)))

    assert sizes(policy) == [2, 2]


@pytest.mark.parametrize(("calls", "always"), [(20, None), (None, 20)])
def test_so_has_one_that_was_refused_before_it_asked(calls: int | None, always: int | None) -> None:
    policy = batching(calls, always)

    policy.expect_control(0)
    ask(policy, *(call(n) for n in range(4)))

    assert sizes(policy) == [2, 2]


@pytest.mark.parametrize(("calls", "always"), [(20, 30), (30, 20)])
def test_of_two_limits_the_lower_one_holds(calls: int, always: int) -> None:
    policy = batching(calls, always)
    ask(policy, call(9, CONTROL, "b"), *(call(n) for n in range(4)))

    assert sizes(policy) == [1, 2, 2]


LOWER = st.sampled_from([INTERACTIVE, BULK])
KEYS = st.sampled_from("abc")


@st.composite
def waiting(draw: st.DrawFn, controls: bool) -> list[Waiting]:
    """Who waits: calls below CONTROL, streams' places, and CONTROL's calls if there are such."""
    found = list[Waiting]()
    for number in range(draw(st.integers(0, 20))):
        key, kind = draw(KEYS), draw(st.sampled_from(["call", "stream", "control"]))
        if kind == "stream":
            found.append(place(number, draw(st.sampled_from([CONTROL, INTERACTIVE, BULK])), key))
        elif kind == "call" or not controls:
            found.append(call(number, draw(LOWER), key))
        else:
            found.append(call(number, CONTROL, key))
    return found


def batches(policy: Batching, now_ms: int) -> list[Batch]:
    """What runs until nothing waits, one after another and each in no time."""
    found = list[Batch]()
    while (batch := policy.next_batch(now_ms)) is not None:
        found.append(batch)
        policy.idle(now_ms)
    return found


@given(waiting(controls=False), st.integers(1, 8), st.integers(1, 100))
def test_who_has_no_control_calls_loses_nothing_by_the_limit(
    waits: list[Waiting], max_batch: int, calls: int
) -> None:
    limited, free = batching(calls, max_batch=max_batch), batching(max_batch=max_batch)
    ask(limited, *waits)
    ask(free, *waits)

    assert batches(limited, 0) == batches(free, 0)


@given(
    waiting(controls=True),
    st.integers(1, 8),
    st.integers(1, 100),
    st.integers(0, 2 * EXPECTED_MS),
)
def test_no_batch_of_others_is_longer_than_the_limit_while_control_calls_come(
    waits: list[Waiting], max_batch: int, calls: int, later_ms: int
) -> None:
    policy = batching(calls, max_batch=max_batch)
    ask(policy, *waits)
    control = {one.item for one in waits if one.priority == CONTROL and one.turn_ms is None}
    comes = bool(control) and later_ms < EXPECTED_MS

    for batch in batches(policy, later_ms):
        cost, size = COSTS.get(batch.key), len(batch.items)
        free = size == 1 or cost is None or set(batch.items) <= control
        assert not comes or free or (cost is not None and cost.of(size) <= calls)


@given(waiting(controls=True), st.integers(1, 8), st.integers(1, 100))
def test_whom_the_limit_holds_back_it_does_not_lose(
    waits: list[Waiting], max_batch: int, calls: int
) -> None:
    policy = batching(calls, max_batch=max_batch)
    ask(policy, *waits)

    ran = [item for batch in batches(policy, 0) for item in batch.items]

    assert sorted(ran) == sorted(one.item for one in waits)
