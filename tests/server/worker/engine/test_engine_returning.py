"""Callers in a closed loop: a free engine waits for them, as long as that may pay.

Time is in whole milliseconds and passed in; nothing here sleeps.
"""

from collections.abc import Hashable

import pytest

from tectum_server.worker.engine.batching import Admitted, Batch, Batching, Waiting
from tectum_server.worker.engine.cost import Cost

CONTROL, INTERACTIVE = 1, 2


def batching(max_batch: int = 8, **costs: Cost) -> Batching:
    known: dict[Hashable, Cost] = dict(costs.items())
    return Batching(100, max_batch, known.get)


def item(
    number: int, key: str = "c", priority: int = INTERACTIVE, deadline_ms: int = 10_000
) -> Waiting:
    return Waiting(number, key, priority, deadline_ms)


def admitted(policy: Batching, *items: Waiting, now_ms: int) -> Batching:
    for one in items:
        assert policy.admit([one], now_ms) == Admitted()
    return policy


def after_three_batches(policy: Batching, items: int) -> int:
    """When the third batch of callers who are back within a millisecond ends: 302."""
    now_ms, number = 0, 0
    for _ in range(3):
        admitted(policy, *(item(number + one) for one in range(items)), now_ms=now_ms)
        assert policy.pause(now_ms) == 0  # all are back
        assert policy.next_batch(now_ms) is not None
        number, now_ms = number + items, now_ms + 100
        policy.idle(now_ms)
        now_ms += 1
    return now_ms - 1


def test_callers_that_come_back_at_once_are_waited_for_while_it_saves_more_than_it_costs() -> None:
    policy = batching(c=Cost(20, 5))
    ended_ms = after_three_batches(policy, 4)

    admitted(policy, item(90), now_ms=ended_ms + 2)
    assert policy.pause(ended_ms + 2) == 18
    admitted(policy, item(91), item(92), now_ms=ended_ms + 5)
    assert policy.pause(ended_ms + 5) == 15
    admitted(policy, item(93), now_ms=ended_ms + 6)

    assert policy.pause(ended_ms + 6) == 0  # as many as were answered
    assert policy.next_batch(ended_ms + 6) == Batch("c", (90, 91, 92, 93))


def test_nobody_is_waited_for_longer_than_a_batch_costs_without_its_items() -> None:
    policy = batching(c=Cost(20, 5))
    ended_ms = after_three_batches(policy, 4)

    admitted(policy, item(90), now_ms=ended_ms + 2)

    assert policy.pause(ended_ms + 20) == 0


def test_who_never_came_back_is_not_waited_for() -> None:
    policy = admitted(batching(c=Cost(20, 5)), item(1), item(2), now_ms=0)
    policy.next_batch(0)
    policy.idle(30)

    admitted(policy, item(3), now_ms=31)

    assert policy.pause(31) == 0


def test_a_habit_that_ends_is_forgotten() -> None:
    policy = batching(c=Cost(20, 5))
    now_ms = after_three_batches(policy, 4) + 200  # nobody is back

    admitted(policy, item(90), item(91), now_ms=now_ms)
    policy.next_batch(now_ms)
    policy.idle(now_ms + 30)
    admitted(policy, item(92), now_ms=now_ms + 31)

    assert policy.pause(now_ms + 31) == 0


@pytest.mark.parametrize(
    "other",
    [
        item(99, priority=CONTROL),
        item(99, key="d"),
        item(99, deadline_ms=352),
    ],
    ids=["control", "another key", "a near deadline"],
)
def test_with_something_urgent_or_different_waiting_the_engine_takes_what_there_is(
    other: Waiting,
) -> None:
    policy = batching(c=Cost(20, 5), d=Cost(20, 5))
    ended_ms = after_three_batches(policy, 4)
    assert ended_ms == 302

    admitted(policy, item(90), other, now_ms=ended_ms + 2)

    assert policy.pause(ended_ms + 2) == 0


def test_a_full_batch_does_not_wait() -> None:
    policy = batching(max_batch=4, c=Cost(20, 5))
    ended_ms = after_three_batches(policy, 4)

    admitted(policy, *(item(number) for number in range(90, 93)), now_ms=ended_ms + 2)
    assert policy.pause(ended_ms + 2) > 0
    admitted(policy, item(93), now_ms=ended_ms + 2)

    assert policy.pause(ended_ms + 2) == 0
