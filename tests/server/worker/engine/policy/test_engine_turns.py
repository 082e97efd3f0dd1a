"""Calls and streams of one class: who goes first, and that neither starves the other."""

from collections import Counter
from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import (
    Admitted,
    Batch,
    Batching,
    Forecast,
    Reason,
    Refused,
    Waiting,
)
from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.policy.turns import Turns

CONTROL, INTERACTIVE, BULK = 1, 2, 3
FAR = 10**9
CALLS, STREAMS = (CONTROL, False), (CONTROL, True)


def batching(max_block_ms: int | None = None, max_queued: int = 1000, **costs: Cost) -> Batching:
    known: dict[Hashable, Cost] = dict(costs.items())
    return Batching(max_queued, 32, known.get, max_block_ms)


def call(
    number: int, key: str = "a", priority: int = CONTROL, deadline_ms: int = FAR
) -> list[Waiting]:
    return [Waiting(number, key, priority, deadline_ms)]


def place(
    number: int,
    turn_ms: int = 0,
    key: str = "a",
    priority: int = CONTROL,
    deadline_ms: int = FAR,
) -> list[Waiting]:
    return [Waiting(number, key, priority, deadline_ms, turn_ms=turn_ms)]


# ---------------------------------------------------------------- places in the line


def test_a_place_is_not_refused_for_what_waits_before_it() -> None:
    policy = batching(max_queued=4, a=Cost(10, 100))
    for number in range(40):
        assert policy.admit(place(number, deadline_ms=200), 0) == Admitted()

    assert policy.admit(call(40, deadline_ms=300), 0) == Admitted()  # nor is a call for streams


def test_a_place_is_refused_only_if_no_frame_of_its_lifespan_could_be_answered_alone() -> None:
    policy = batching(a=Cost(10, 100))

    never = policy.admit(place(1, deadline_ms=100), 0, arrived_ms=-9)
    too_late = policy.admit(place(1, deadline_ms=0), 0, arrived_ms=-110)

    infeasible = Forecast(left_ms=109, takes_ms=110, alone=True)
    assert never == Refused(Reason.DEADLINE_INFEASIBLE, None, infeasible)
    assert too_late == Refused(Reason.DEADLINE_PASSED)
    assert policy.admit(place(1, deadline_ms=1), 0, arrived_ms=-109) == Admitted()


def test_a_place_keeps_its_turn_with_a_newer_frame_and_is_given_up_a_second_after_the_last() -> (
    None
):
    policy = batching(a=Cost(0, 1))
    policy.admit(place(1, turn_ms=1, deadline_ms=50), 0)
    policy.admit(place(2, turn_ms=2, deadline_ms=40), 0)
    policy.renew({1: None}, 500)

    assert policy.expire(1039) == ()
    assert policy.expire(1040) == (2,)
    assert policy.upcoming(1040) == (1,)
    assert policy.expire(1500) == (1,)


# ---------------------------------------------------------------- the operator's limit


@given(st.integers(1, 40), st.integers(1, 32), st.integers(0, 12_000))
def test_while_control_calls_come_streams_batches_stay_within_the_limit(
    max_block_ms: int, places: int, now_ms: int
) -> None:
    cost = Cost(3, 2)
    policy = batching(max_block_ms, a=cost, other=Cost(0, 1))
    policy.admit(call(99, "other"), 0)
    policy.next_batch(0)
    policy.idle(0)
    for number in range(places):
        policy.admit(place(number), now_ms)

    batch = policy.next_batch(now_ms)

    assert batch is not None
    size = len(batch.items)
    if now_ms >= 10_000:  # no call has come for long
        assert size == places
    else:
        assert size == 1 or cost.of(size) <= max_block_ms
        assert size == places or cost.of(size + 1) > max_block_ms  # no smaller than it must be


def test_streams_alone_hold_back_what_is_below_them_and_not_themselves() -> None:
    policy = batching(20, a=Cost(10, 5), b=Cost(10, 5))
    for number in range(4):
        policy.admit(place(number), 0)
    for number in range(4, 8):
        policy.admit(call(number, "b", BULK), 0)

    assert policy.next_batch(0) == Batch("a", (0, 1, 2, 3))
    assert policy.next_batch(0) == Batch("b", (4, 5))


@given(
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 12),
    st.integers(0, 30),
    st.integers(4, 30),
    st.integers(1, 200),
)
def test_within_the_limit_a_call_now_and_then_is_always_in_time(
    gaps_ms: list[int], places: int, fixed_ms: int, each_ms: int, max_block_ms: int
) -> None:
    cost = Cost(fixed_ms, each_ms)
    block_ms = max(max_block_ms, round(cost.of(1)))  # a single item is never held back
    patience_ms = round(1.5 * cost.of(1)) + block_ms
    policy = Batching(1000, 32, lambda _: cost, max_block_ms)
    policy.admit(call(0, "call"), 0)
    policy.next_batch(0)
    policy.idle(0)
    number, now_ms = 1, 0
    for _ in range(places):
        policy.admit(place(number := number + 1, key="frame"), 0)
    for gap_ms in gaps_ms:
        # The engine goes on with streams, each of which comes back at once.
        until_ms, due_ms = now_ms + patience_ms + gap_ms, None
        while now_ms < until_ms or due_ms is not None:
            batch = policy.next_batch(now_ms)
            assert batch is not None
            ends_ms = now_ms + round(cost.of(len(batch.items)))
            if batch.key == "call":
                assert due_ms is not None
                assert ends_ms <= due_ms
                due_ms = None
            elif due_ms is None and ends_ms >= until_ms:  # it comes while this batch runs
                due_ms = max(until_ms, now_ms) + patience_ms
                asked = call(number := number + 1, "call", deadline_ms=due_ms)
                assert policy.admit(asked, max(until_ms, now_ms)) == Admitted()
            now_ms = ends_ms
            policy.idle(now_ms)
            for _ in batch.items if batch.key == "frame" else ():
                policy.admit(place(number := number + 1, now_ms, "frame"), now_ms)


# ---------------------------------------------------------------- neither starves the other


@pytest.mark.parametrize("priority", [CONTROL, INTERACTIVE, BULK])
@given(
    places=st.integers(1, 40),
    calls=st.integers(1, 40),
    fixed_ms=st.integers(0, 20),
    each_ms=st.integers(1, 20),
    max_block_ms=st.none() | st.integers(1, 100),
)
@settings(max_examples=30)
def test_calls_and_streams_that_both_always_wait_have_half_of_the_engine_each(
    priority: int,
    places: int,
    calls: int,
    fixed_ms: int,
    each_ms: int,
    max_block_ms: int | None,
) -> None:
    cost = Cost(fixed_ms, each_ms)
    policy = Batching(1000, 32, lambda _: cost, max_block_ms)
    kinds = dict[int, str]()
    number, now_ms, had = 0, 0, Counter[str]()

    def ask(kind: str) -> None:
        nonlocal number
        number += 1
        kinds[number] = kind
        streams = kind == "stream"
        asked = place(number, now_ms, kind, priority) if streams else call(number, kind, priority)
        assert policy.admit(asked, now_ms) == Admitted()

    for kind, count in (("stream", places), ("call", calls)):
        for _ in range(count):
            ask(kind)
    for _ in range(40):
        batch = policy.next_batch(now_ms)
        assert batch is not None
        took_ms = cost.of(len(batch.items))
        now_ms += round(took_ms)
        policy.idle(now_ms)
        for item in batch.items:
            had[kinds[item]] += round(took_ms / len(batch.items) * 1000)
        for item in batch.items:
            ask(kinds.pop(item))

    assert abs(had["stream"] - had["call"]) <= 4000 * cost.of(min(32, max(places, calls)))


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([CALLS, STREAMS]), min_size=1, max_size=4), st.integers(1, 50)
        ),
        min_size=1,
    ),
    st.integers(1, 100),
)
def test_streams_are_never_owed_more_than_a_turn_and_half_of_a_batch(
    batches: list[tuple[list[tuple[int, bool]], int]], turn_ms: int
) -> None:
    turns = Turns()
    for members, took_ms in batches:
        turns.ran(members, took_ms, {CONTROL: turn_ms})

    longest_ms = max(took_ms for _, took_ms in batches)
    assert not turns.owed(CONTROL, turn_ms + longest_ms / 2 + 0.1)


def test_who_neither_waits_nor_comes_back_from_a_batch_is_owed_nothing() -> None:
    turns = Turns()
    turns.ran([CALLS], 100, {CONTROL: 30})
    turns.ran([STREAMS], 20, {})
    assert turns.owed(CONTROL, 20)

    turns.ran([CALLS], 100, {})

    assert not turns.owed(CONTROL, 0)


def test_a_call_reckons_with_the_streams_that_go_before_it() -> None:
    policy = batching(a=Cost(0, 40), frame=Cost(0, 30))
    policy.admit(place(1, key="frame"), 0)
    policy.admit(call(2), 0)
    assert policy.next_batch(0) == Batch("a", (2,))
    policy.idle(40)  # the stream is owed 20 ms
    policy.admit(call(3), 40)
    assert policy.next_batch(40) == Batch("a", (3,))  # and 40 ms at its end: more than its batch

    # 80 is when the engine is free, 110 when it has computed the stream's frame.
    late, just = (policy.admit(call(4, deadline_ms=ms), 40) for ms in (149, 150))

    assert late == Refused(Reason.DEADLINE_UNREACHABLE, 1, Forecast(109, 110, alone=False))
    assert just == Admitted()
    policy.idle(80)
    assert policy.next_batch(80) == Batch("frame", (1,))
