"""Which waiting requests run together, and when, by example; the laws have a file of their own.

Time is in whole milliseconds and passed in; nothing here sleeps.
"""

from collections.abc import Hashable

import pytest

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

CONTROL, INTERACTIVE, BULK = 1, 2, 3


def batching(
    max_queued: int = 100, max_batch: int = 8, max_block_ms: int | None = None, **costs: Cost
) -> Batching:
    known: dict[Hashable, Cost] = dict(costs.items())  # of other keys nothing is known
    return Batching(max_queued, max_batch, known.get, max_block_ms)


def item(
    number: int = 0, key: str = "c", priority: int = INTERACTIVE, deadline_ms: int = 10_000
) -> Waiting:
    return Waiting(number, key, priority, deadline_ms)


def infeasible(left_ms: int, takes_ms: int) -> Refused:
    """What a deadline that the request's own cost rules out is refused with."""
    return Refused(Reason.DEADLINE_INFEASIBLE, None, Forecast(left_ms, takes_ms, alone=True))


def unreachable(left_ms: int, takes_ms: int, *, alone: bool = False) -> Refused:
    """What a deadline is refused with that can be met a little later."""
    forecast = Forecast(left_ms, takes_ms, alone)
    return Refused(Reason.DEADLINE_UNREACHABLE, takes_ms - left_ms, forecast)


def admitted(policy: Batching, *items: Waiting, now_ms: int = 0) -> Batching:
    for one in items:
        assert policy.admit([one], now_ms) == Admitted()
    return policy


def order(policy: Batching, now_ms: int = 0) -> list[tuple[int, ...]]:
    """The batches that come out until nothing waits, at one moment."""
    batches = []
    while (batch := policy.next_batch(now_ms)) is not None:
        batches.append(batch.items)
        policy.idle(now_ms)
    return batches


# ---------------------------------------------------------------- examples


def test_nothing_waits_at_first() -> None:
    assert batching().next_batch(0) is None
    assert len(batching()) == 0


def test_what_waits_runs_at_once_and_together() -> None:
    policy = admitted(batching(), item(1), item(2), item(3))

    assert policy.next_batch(0) == Batch("c", (1, 2, 3))
    assert policy.next_batch(0) is None


def test_other_keys_wait_for_a_batch_of_their_own() -> None:
    policy = admitted(batching(), item(1, "x"), item(2, "y"), item(3, "x"))

    assert order(policy) == [(1, 3), (2,)]


def test_a_batch_is_no_larger_than_allowed() -> None:
    policy = admitted(batching(max_batch=2), *(item(n) for n in range(5)))

    assert order(policy) == [(0, 1), (2, 3), (4,)]


def test_control_overtakes_what_came_before_it() -> None:
    policy = admitted(
        batching(max_batch=1),
        item(1, priority=BULK, deadline_ms=100),
        item(2, priority=INTERACTIVE, deadline_ms=100),
        item(3, priority=CONTROL, deadline_ms=9000),
    )

    assert order(policy) == [(3,), (2,), (1,)]


def test_within_a_class_the_earliest_deadline_goes_first_and_then_who_came_first() -> None:
    policy = admitted(
        batching(max_batch=1),
        item(1, deadline_ms=500),
        item(2, deadline_ms=400),
        item(3, deadline_ms=400),
    )

    assert order(policy) == [(2,), (3,), (1,)]


def test_a_lower_class_may_ride_along_in_a_batch_of_its_key() -> None:
    policy = admitted(
        batching(), item(1, priority=BULK), item(2, "other"), item(3, priority=CONTROL)
    )

    assert order(policy) == [(3, 1), (2,)]


def test_mates_who_would_make_the_first_one_late_stay_behind() -> None:
    policy = batching(a=Cost(10, 5))
    admitted(policy, item(2, "a"), item(3, "a"), item(4, "a"))
    admitted(policy, item(9, "a", CONTROL, deadline_ms=21))

    assert policy.next_batch(0) == Batch("a", (9, 2))  # 10 + 5·2 = 20; a third would make it 25


def test_who_would_be_late_even_alone_does_not_bind_the_others() -> None:
    costs: dict[Hashable, Cost] = {}
    policy = Batching(100, 8, costs.get)
    admitted(policy, item(1, "a", deadline_ms=5), item(2, "a"), item(3, "a"))
    costs["a"] = Cost(10, 5)  # learnt since

    assert policy.next_batch(0) == Batch("a", (1, 2, 3))


def test_a_request_whose_deadline_cannot_be_met_at_all_is_refused_for_good() -> None:
    policy = batching(a=Cost(10, 2))

    assert policy.admit([item(1, "a", deadline_ms=11)], 0) == infeasible(11, 12)
    assert policy.admit([item(1, "a", deadline_ms=12)], 0) == Admitted()


def test_its_own_cost_rules_a_request_out_only_at_its_best() -> None:
    policy = batching(a=Cost(10, 2, least=0.5))

    assert policy.admit([item(1, "a", deadline_ms=5)], 0) == infeasible(5, 6)
    assert policy.admit([item(1, "a", deadline_ms=6)], 0) == Admitted()
    # What waits before it counts as it usually is.
    assert policy.admit([item(2, "a", deadline_ms=7)], 0) == unreachable(7, 8)


def test_time_that_the_worker_has_lost_is_no_fault_of_the_deadline() -> None:
    policy, late = batching(a=Cost(10, 2)), [item(1, "a", deadline_ms=111)]

    assert policy.admit(late, 100, arrived_ms=99) == unreachable(11, 12, alone=True)
    assert policy.admit(late, 100, arrived_ms=100) == infeasible(11, 12)
    # What can never be met is told as the caller set it, before the worker lost any of it.
    assert policy.admit([item(1, "a", deadline_ms=110)], 103, arrived_ms=100) == infeasible(10, 12)


def test_now_and_then_one_that_would_be_refused_is_let_in_to_see() -> None:
    policy = batching(a=Cost(400, 0), b=Cost(3, 0))

    def ask(number: int, now_ms: int) -> bool:
        asked = item(number, "a", CONTROL, deadline_ms=now_ms + 250)
        return policy.admit([asked], now_ms) == Admitted()

    assert [ask(n, now_ms) for n, now_ms in enumerate((0, 1000, 3999))] == [False] * 3
    assert ask(3, 4000)  # ten times its cost later
    assert not ask(4, 4000)  # one at a time
    assert policy.next_batch(4000) == Batch("a", (3,))
    policy.idle(4001)
    assert [ask(n, now_ms) for n, now_ms in ((5, 4010), (6, 8009), (7, 8010))] == [
        False, False, True,
    ]  # fmt: skip


def test_where_its_key_runs_for_others_nobody_is_let_in_to_see() -> None:
    policy = batching(a=Cost(90, 0))
    verdicts = []
    for now_ms in range(0, 10_000, 500):
        admitted(policy, item(now_ms, "a", deadline_ms=now_ms + 5000), now_ms=now_ms)
        policy.next_batch(now_ms)
        policy.idle(now_ms)
        verdicts.append(policy.admit([item(now_ms + 1, "a", deadline_ms=now_ms + 80)], now_ms))

    assert set(verdicts) == {infeasible(80, 90)}


def test_what_is_let_in_to_see_still_waits_for_its_turn() -> None:
    policy = batching(a=Cost(50, 0), b=Cost(30, 0))
    policy.admit([item(1, "a", deadline_ms=40)], 0)
    admitted(policy, item(2, "b"), now_ms=2000)

    assert policy.admit([item(3, "a", deadline_ms=2029)], 2000) == Admitted()  # before the other
    policy.cancel([3])
    policy.next_batch(2000)
    assert policy.admit([item(4, "a", deadline_ms=2029)], 2000) == unreachable(29, 30)


def test_a_request_that_would_make_it_but_for_the_queue_is_told_when_to_come_back() -> None:
    policy = batching(a=Cost(10, 2), b=Cost(30, 0))
    admitted(policy, item(1, "b", deadline_ms=40))

    verdict = policy.admit([item(2, "a", deadline_ms=41)], 0)

    assert verdict == unreachable(41, 42)


def test_what_waits_behind_a_request_does_not_count_against_it() -> None:
    policy = batching(a=Cost(10, 2), b=Cost(30, 0))
    admitted(policy, item(1, "b", priority=BULK))

    assert policy.admit([item(2, "a", deadline_ms=12)], 0) == Admitted()


def test_the_batch_that_runs_counts_against_whoever_comes() -> None:
    policy = admitted(batching(a=Cost(10, 2), b=Cost(30, 0)), item(1, "b"))
    policy.next_batch(0)  # runs until 30

    assert policy.admit([item(2, "a", deadline_ms=41)], 5) == unreachable(36, 37)
    policy.idle(5)
    assert policy.admit([item(2, "a", deadline_ms=41)], 5) == Admitted()


def test_a_request_that_comes_too_late_is_not_taken() -> None:
    assert batching().admit([item(deadline_ms=50)], 50) == Refused(Reason.DEADLINE_PASSED)


def test_a_full_queue_refuses_and_tells_how_long_what_waits_will_take() -> None:
    policy = admitted(batching(max_queued=3, a=Cost(3, 2)), item(1, "a"), item(2, "a"))

    assert policy.admit([item(3, "a"), item(4, "a")], 0) == Refused(
        Reason.QUEUE_FULL, retry_after_ms=7
    )
    assert policy.admit([item(3, "a")], 0) == Admitted()


def test_bulk_leaves_control_room_in_the_queue() -> None:
    policy = batching(max_queued=8)
    admitted(policy, *(item(n, priority=BULK) for n in range(6)))

    assert policy.admit([item(6, priority=BULK)], 0) == Refused(Reason.QUEUE_FULL, 1)
    admitted(policy, item(7, priority=INTERACTIVE), item(8, priority=CONTROL))
    assert policy.admit([item(9, priority=CONTROL)], 0) == Refused(Reason.QUEUE_FULL, 1)


def test_a_request_larger_than_its_share_is_taken_beside_the_few_who_wait() -> None:
    policy = admitted(batching(max_queued=8), item(8, priority=CONTROL))

    assert policy.admit([item(n, priority=BULK) for n in range(8)], 0) == Refused(
        Reason.QUEUE_FULL, 1
    )
    assert policy.admit([item(n, priority=BULK) for n in range(7)], 0) == Admitted()


def test_while_control_comes_others_batches_stay_within_the_operators_limit() -> None:
    policy = batching(max_block_ms=20, a=Cost(10, 5))
    admitted(policy, *(item(n, "a", BULK) for n in range(8)))
    assert policy.next_batch(0) == Batch("a", (0, 1, 2, 3, 4, 5, 6, 7))  # nobody to be blocked

    admitted(policy, *(item(n, "a", BULK) for n in range(8)), item(9, "other", CONTROL))

    assert order(policy) == [(9,), (0, 1), (2, 3), (4, 5), (6, 7)]


def test_where_no_control_has_come_for_long_batches_are_large_again() -> None:
    policy = batching(max_block_ms=20, a=Cost(10, 5))
    admitted(
        policy, item(9, "other", CONTROL), *(item(n, "a", deadline_ms=60_000) for n in (1, 2, 3))
    )

    assert order(policy, 9_999) == [(9,), (1, 2), (3,)]
    admitted(policy, *(item(n, "a", deadline_ms=60_000) for n in (1, 2, 3)))
    assert order(policy, 10_000) == [(1, 2, 3)]


def test_a_single_item_and_controls_own_are_never_held_back() -> None:
    policy = batching(max_block_ms=5, a=Cost(10, 5))
    admitted(policy, *(item(n, "a", CONTROL) for n in range(3)), *(item(n, "a") for n in (3, 4)))

    assert order(policy) == [(0, 1, 2), (3,), (4,)]


def test_what_is_asked_for_later_must_be_in_time_too() -> None:
    def asked(deadline_ms: int, policy: Batching) -> object:
        return policy.admit([item(1, "a", deadline_ms=deadline_ms)], 0, later={"b": 3})

    def fresh() -> Batching:
        return batching(a=Cost(10, 2), b=Cost(20, 5))

    def busy() -> Batching:
        return admitted(fresh(), item(0, "a", deadline_ms=12))

    assert asked(46, fresh()) == infeasible(46, 47)
    assert asked(47, fresh()) == Admitted()
    assert asked(48, busy()) == unreachable(48, 49)
    assert asked(49, busy()) == Admitted()


def test_what_is_asked_for_later_waits_for_nothing_yet() -> None:
    policy = batching(a=Cost(10, 2), b=Cost(20, 5))

    policy.admit([item(1, "a")], 0, later={"b": 3})

    assert len(policy) == 1
    assert order(policy) == [(1,)]


def test_what_is_refused_for_what_it_asks_later_is_let_in_now_and_then_and_so_is_that() -> None:
    policy = batching(a=Cost(10, 0), b=Cost(50, 0))

    def begun(now_ms: int) -> object:
        return policy.admit([item(now_ms, "a", deadline_ms=now_ms + 30)], now_ms, later={"b": 1})

    assert begun(0) == infeasible(30, 60)
    policy.next_batch(500)
    assert begun(1000) == Admitted()
    assert begun(1001) == infeasible(30, 60)
    assert order(policy, 1001) == [(1000,)]
    assert policy.admit([item(2000, "b", deadline_ms=1030)], 1011) == Admitted()


def test_a_request_is_taken_whole_or_not_at_all() -> None:
    policy = batching(max_queued=3)

    policy.admit([item(n) for n in range(4)], 0)

    assert len(policy) == 0


def test_cancelled_and_expired_items_are_gone() -> None:
    policy = admitted(batching(), item(1), item(2, deadline_ms=10), item(3))

    policy.cancel([1, 99])

    assert policy.expire(9) == ()
    assert policy.expire(10) == (2,)
    assert order(policy) == [(3,)]


def test_depth_is_told_by_priority() -> None:
    policy = admitted(batching(), item(1), item(2, priority=CONTROL), item(3))

    assert policy.depth() == {INTERACTIVE: 2, CONTROL: 1}


@pytest.mark.parametrize("reason", list(Reason))
def test_only_reasons_that_pass_with_time_come_with_a_time(reason: Reason) -> None:
    policy = batching(max_queued=1, a=Cost(10, 2))
    admitted(policy, item(1, "a", deadline_ms=12))
    asked = {
        Reason.QUEUE_FULL: item(2, "a"),
        Reason.DEADLINE_INFEASIBLE: item(2, "a", deadline_ms=11),
        Reason.DEADLINE_PASSED: item(2, "a", deadline_ms=0),
        Reason.DEADLINE_UNREACHABLE: item(2, "a", deadline_ms=13),
    }[reason]
    if reason is Reason.DEADLINE_UNREACHABLE:
        policy.next_batch(0)

    verdict = policy.admit([asked], 0)

    assert isinstance(verdict, Refused)
    assert verdict.reason is reason
    passes = reason in (Reason.QUEUE_FULL, Reason.DEADLINE_UNREACHABLE)
    assert (verdict.retry_after_ms is not None) is passes


# ---------------------------------------------------------------- who is overtaken


def half_used() -> Batching:
    """CONTROL has had the engine half of the time, until just now."""
    policy = batching(a=Cost(0, 10), c=Cost(0, 500))
    admitted(policy, item(1, "c", CONTROL))
    policy.next_batch(0)
    policy.idle(500)
    return policy


def test_a_free_engine_is_not_taken_from_who_finds_it_free() -> None:
    assert half_used().admit([item(2, "a", deadline_ms=510)], 500) == Admitted()


def test_who_waits_reckons_with_as_much_from_above_as_there_was_of_late() -> None:
    policy = half_used()
    admitted(policy, item(2, "a"), now_ms=500)
    policy.next_batch(500)  # until 510

    # 10 ms at half of the engine, then its own 10.
    assert policy.admit([item(3, "a", deadline_ms=529)], 500) == unreachable(29, 30)
    assert policy.admit([item(3, "a", deadline_ms=530)], 500) == Admitted()
    assert policy.admit([item(4, "a", CONTROL, deadline_ms=520)], 500) == Admitted()
