"""Callers in a closed loop: a free engine waits for them, a tenth of what their batch took.

Time is in whole milliseconds and passed in; nothing here sleeps.
"""

from collections.abc import Hashable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Admitted, Batch, Batching, Waiting
from tectum_server.worker.engine.policy.cost import Cost

CONTROL, INTERACTIVE, BULK = 1, 2, 3
COST = Cost(40, 90)
"""A batch of four takes 400 ms, of which a tenth is 40."""
TAKES_MS, WINDOW_MS = 400, 40
LENGTH_MS = 30_000
"""Of a simulated day."""


def batching(max_batch: int = 8, **costs: Cost) -> Batching:
    known: dict[Hashable, Cost] = dict(costs.items()) or {"c": COST, "d": COST}
    return Batching(100, max_batch, known.get)


def item(
    number: int, key: str = "c", priority: int = INTERACTIVE, deadline_ms: int = 100_000
) -> Waiting:
    return Waiting(number, key, priority, deadline_ms)


def admitted(policy: Batching, *items: Waiting, now_ms: int) -> Batching:
    for one in items:
        assert policy.admit([one], now_ms) == Admitted()
    return policy


def in_a_loop(policy: Batching, items: int = 4, key: str = "c", priority: int = INTERACTIVE) -> int:
    """When the third batch of callers who are back within a millisecond ends."""
    now_ms, number = 0, 0
    for _ in range(3):
        coming = (item(number + one, key, priority) for one in range(items))
        admitted(policy, *coming, now_ms=now_ms)
        assert policy.pause(now_ms) == 0  # all are back
        assert policy.next_batch(now_ms) is not None
        number, now_ms = number + items, now_ms + TAKES_MS
        policy.idle(now_ms)
        now_ms += 1
    return now_ms - 1


# ---------------------------------------------------------------- who is waited for


def test_callers_that_come_back_at_once_are_waited_for() -> None:
    policy = batching()
    ended_ms = in_a_loop(policy)

    admitted(policy, item(90), now_ms=ended_ms + 2)
    assert policy.pause(ended_ms + 2) == WINDOW_MS - 2
    admitted(policy, item(91), item(92), now_ms=ended_ms + 5)
    assert policy.pause(ended_ms + 5) == WINDOW_MS - 5
    admitted(policy, item(93), now_ms=ended_ms + 6)

    assert policy.pause(ended_ms + 6) == 0  # as many as were answered
    assert policy.next_batch(ended_ms + 6) == Batch("c", (90, 91, 92, 93))


def test_nobody_is_waited_for_longer_than_a_tenth_of_the_batch() -> None:
    policy = batching()
    ended_ms = in_a_loop(policy)

    admitted(policy, item(90), now_ms=ended_ms + 2)

    assert policy.pause(ended_ms + WINDOW_MS - 1) == 1
    assert policy.pause(ended_ms + WINDOW_MS) == 0


@pytest.mark.parametrize(("took_ms", "waits_ms"), [(100, 10), (300, 30), (1000, 40)])
def test_it_is_a_tenth_of_what_that_batch_took_whatever_others_did(
    took_ms: int, waits_ms: int
) -> None:
    policy = batching()  # batches of four usually take 400 ms, and cost 40 whoever is in them
    began_ms = in_a_loop(policy) + 1
    admitted(policy, *(item(80 + one) for one in range(4)), now_ms=began_ms)
    policy.next_batch(began_ms)
    policy.idle(began_ms + took_ms)

    admitted(policy, item(90), now_ms=began_ms + took_ms)

    assert policy.pause(began_ms + took_ms) == waits_ms


def test_nor_longer_than_a_batch_costs_without_its_items() -> None:
    policy = batching(c=Cost(5, 98))
    ended_ms = in_a_loop(policy)

    admitted(policy, item(90), now_ms=ended_ms + 2)

    assert policy.pause(ended_ms + 2) == 3


def test_who_never_came_back_is_not_waited_for() -> None:
    policy = admitted(batching(), item(1), item(2), now_ms=0)
    policy.next_batch(0)
    policy.idle(220)

    admitted(policy, item(3), now_ms=221)

    assert policy.pause(221) == 0


def test_a_habit_that_ends_is_forgotten() -> None:
    policy = batching()
    now_ms = in_a_loop(policy) + 200  # nobody is back

    admitted(policy, item(90), item(91), now_ms=now_ms)
    policy.next_batch(now_ms)
    policy.idle(now_ms + 220)
    admitted(policy, item(92), now_ms=now_ms + 221)

    assert policy.pause(now_ms + 221) == 0


def test_a_habit_is_of_one_key() -> None:
    policy = batching()
    ended_ms = in_a_loop(policy, key="d")

    admitted(policy, *(item(90 + one) for one in range(4)), now_ms=ended_ms + 1)
    policy.next_batch(ended_ms + 1)
    policy.idle(ended_ms + 401)
    admitted(policy, item(95), now_ms=ended_ms + 402)

    assert policy.pause(ended_ms + 402) == 0  # nobody was ever seen to come back for it


def test_arrivals_of_another_key_are_no_return() -> None:
    policy = batching()
    ended_ms = in_a_loop(policy)
    admitted(policy, *(item(80 + one, "d") for one in range(4)), now_ms=ended_ms + 1)
    policy.cancel(range(80, 84))

    admitted(policy, item(90), now_ms=ended_ms + 2)

    assert policy.pause(ended_ms + 2) == WINDOW_MS - 2  # four are missing still


def test_who_is_not_yet_answered_in_full_is_not_waited_for() -> None:
    policy, now_ms = batching(max_batch=4), 0
    for number in range(5):
        parts = [Waiting(10 * number + one, "c", INTERACTIVE, 100_000, number) for one in range(6)]
        assert policy.admit(parts, now_ms) == Admitted()
        for size in (4, 2):
            assert policy.pause(now_ms) == 0  # its only caller waits for the rest
            batch = policy.next_batch(now_ms)
            assert batch is not None
            assert len(batch.items) == size
            now_ms += TAKES_MS
            policy.idle(now_ms)
            now_ms += size == 2


# ---------------------------------------------------------------- who does not wait


@pytest.mark.parametrize(
    ("other", "waits"),
    [
        (item(99, priority=CONTROL), False),
        (item(99, key="d"), False),
        (item(99, priority=BULK), True),
        (item(99, deadline_ms=1202 + 520), False),  # 40 + 400 and a quarter of it again are 540
        (item(99, deadline_ms=1202 + 540), True),
    ],
    ids=["control", "another key", "bulk", "a near deadline", "a farther deadline"],
)
def test_with_something_urgent_or_different_waiting_the_engine_takes_what_there_is(
    other: Waiting, waits: bool
) -> None:
    policy = batching()
    ended_ms = in_a_loop(policy)
    assert ended_ms == 1202 - 2 + 2

    admitted(policy, item(90), other, now_ms=ended_ms + 2 - 2)

    assert bool(policy.pause(ended_ms)) is waits


def test_nobody_waits_for_callers_of_a_lower_class() -> None:
    policy = batching()
    ended_ms = in_a_loop(policy, priority=BULK)

    admitted(policy, item(90, priority=BULK), now_ms=ended_ms + 1)
    assert policy.pause(ended_ms + 1) > 0
    admitted(policy, item(91, priority=INTERACTIVE), now_ms=ended_ms + 1)

    assert policy.pause(ended_ms + 1) == 0


def test_a_full_batch_does_not_wait() -> None:
    policy = batching(max_batch=5)
    ended_ms = in_a_loop(policy, items=5)
    admitted(policy, *(item(80 + one) for one in range(7)), now_ms=ended_ms + 1)
    policy.next_batch(ended_ms + 1)
    policy.idle(ended_ms + 401)  # five were answered, and two wait

    admitted(policy, item(90), item(91), now_ms=ended_ms + 402)
    assert policy.pause(ended_ms + 402) > 0
    admitted(policy, item(92), now_ms=ended_ms + 402)

    assert policy.pause(ended_ms + 402) == 0  # three came of five, but the batch is full


def test_where_costs_are_unknown_nobody_waits() -> None:
    policy = Batching(100, 8, lambda _: None)
    ended_ms = in_a_loop(policy)

    admitted(policy, item(90), now_ms=ended_ms)

    assert policy.pause(ended_ms) == 0


# ---------------------------------------------------------------- over a day


def day(
    callers: int, think: tuple[int, int], seed: int, cost: Cost = COST
) -> tuple[float, int, int]:
    """Callers in a loop for a while: mean batch, milliseconds paused, longest pause."""
    policy, draw = Batching(1000, 32, lambda _: cost), Random(seed)
    back = {caller: draw.randint(0, 5) for caller in range(callers)}
    busy: tuple[int, ...] = ()
    free_ms = paused_ms = longest_ms = pause_began = 0
    batches, owner, number = list[int](), dict[int, int](), 0
    for now_ms in range(LENGTH_MS):
        if busy and now_ms >= free_ms:
            policy.idle(now_ms)
            back |= {owner.pop(one): now_ms + draw.randint(*think) for one in busy}
            busy, pause_began = (), now_ms
        for caller in [one for one, when in back.items() if when <= now_ms]:
            del back[caller]
            admitted(policy, Waiting(number, "c", INTERACTIVE, now_ms + 10**6), now_ms=now_ms)
            owner[number] = caller
            number += 1
        if busy:
            continue
        if policy.pause(now_ms):
            paused_ms += 1
            longest_ms = max(longest_ms, now_ms + 1 - pause_began)
        elif (batch := policy.next_batch(now_ms)) is not None:
            busy, free_ms = batch.items, now_ms + round(cost.of(len(batch.items)))
            batches.append(len(batch.items))
    return sum(batches) / len(batches), paused_ms, longest_ms


@settings(max_examples=20)
@given(st.integers(2, 16), st.integers(0, 2**32))
def test_callers_that_are_back_at_once_share_every_batch(callers: int, seed: int) -> None:
    mean_batch, paused_ms, longest_ms = day(callers, (1, 3), seed)

    assert mean_batch >= 0.8 * callers
    assert paused_ms <= 0.1 * LENGTH_MS
    assert longest_ms <= 0.1 * COST.of(callers) + 1


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(0, 2**32))
def test_callers_that_think_for_longer_are_hardly_waited_for(callers: int, seed: int) -> None:
    _, paused_ms, _ = day(callers, (100, 400), seed)

    assert paused_ms <= 0.01 * LENGTH_MS
