"""Which waiting requests run together, and when: examples first, then laws over whole days.

Time is in whole milliseconds and passed in; nothing here sleeps.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.batching import (
    Admitted,
    Batch,
    Batching,
    Reason,
    Refused,
    Waiting,
)
from tectum_server.worker.engine.cost import Cost

CONTROL, INTERACTIVE, BULK = 1, 2, 3
COSTS: dict[Hashable, Cost] = {"a": Cost(3, 2), "b": Cost(0, 7)}  # nothing is known of "c"


def batching(max_queued: int = 100, max_batch: int = 8, **costs: Cost) -> Batching:
    known: dict[Hashable, Cost] = dict(costs.items()) if costs else COSTS
    return Batching(max_queued, max_batch, known.get)


def item(
    number: int = 0, key: str = "c", priority: int = INTERACTIVE, deadline_ms: int = 10_000
) -> Waiting:
    return Waiting(number, key, priority, deadline_ms)


def admitted(policy: Batching, *items: Waiting, now_ms: int = 0) -> Batching:
    for one in items:
        assert policy.admit([one], now_ms) == Admitted()
    return policy


def order(policy: Batching, now_ms: int = 0) -> list[tuple[int, ...]]:
    """The batches that come out until nothing waits, at one moment."""
    batches = []
    while (batch := policy.next_batch(now_ms)) is not None:
        batches.append(batch.items)
        policy.idle()
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

    assert policy.admit([item(1, "a", deadline_ms=11)], 0) == Refused(Reason.DEADLINE_INFEASIBLE)
    assert policy.admit([item(1, "a", deadline_ms=12)], 0) == Admitted()


def test_a_request_that_would_make_it_but_for_the_queue_is_told_when_to_come_back() -> None:
    policy = batching(a=Cost(10, 2), b=Cost(30, 0))
    admitted(policy, item(1, "b", deadline_ms=40))

    verdict = policy.admit([item(2, "a", deadline_ms=41)], 0)

    assert verdict == Refused(Reason.DEADLINE_UNREACHABLE, retry_after_ms=1)  # 42 − 41


def test_what_waits_behind_a_request_does_not_count_against_it() -> None:
    policy = batching(a=Cost(10, 2), b=Cost(30, 0))
    admitted(policy, item(1, "b", priority=BULK))

    assert policy.admit([item(2, "a", deadline_ms=12)], 0) == Admitted()


def test_the_batch_that_runs_counts_against_whoever_comes() -> None:
    policy = admitted(batching(a=Cost(10, 2), b=Cost(30, 0)), item(1, "b"))
    policy.next_batch(0)  # runs until 30

    assert policy.admit([item(2, "a", deadline_ms=41)], 5) == Refused(
        Reason.DEADLINE_UNREACHABLE, retry_after_ms=1
    )
    policy.idle()
    assert policy.admit([item(2, "a", deadline_ms=41)], 5) == Admitted()


def test_a_request_that_comes_too_late_is_not_taken() -> None:
    assert batching().admit([item(deadline_ms=50)], 50) == Refused(Reason.DEADLINE_PASSED)


def test_a_full_queue_refuses_and_tells_how_long_what_waits_will_take() -> None:
    policy = admitted(batching(max_queued=3, a=Cost(3, 2)), item(1, "a"), item(2, "a"))

    assert policy.admit([item(3, "a"), item(4, "a")], 0) == Refused(
        Reason.QUEUE_FULL, retry_after_ms=7
    )
    assert policy.admit([item(3, "a")], 0) == Admitted()


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


# ---------------------------------------------------------------- laws


@dataclass(frozen=True)
class Arrival:
    """A request that comes."""

    at_ms: int
    keys: tuple[str, ...]
    priority: int
    patience_ms: int
    leaves_after_ms: int | None


@dataclass
class Day:
    """What happened."""

    admitted: dict[int, Waiting] = field(default_factory=dict)
    ends: Counter[int] = field(default_factory=Counter)


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        at_ms=st.integers(0, 60),
        keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple),
        priority=st.sampled_from([CONTROL, INTERACTIVE, BULK]),
        patience_ms=st.integers(0, 80),
        leaves_after_ms=st.none() | st.integers(0, 40),
    ),
    max_size=14,
)


def time_for(items: Iterable[Waiting], max_batch: int) -> float:
    """Milliseconds for items run key by key in full batches, one batch after another."""
    total = 0.0
    for key, count in Counter(waiting.key for waiting in items).items():
        cost = COSTS.get(key)
        while cost is not None and count > 0:
            total += cost.of(min(count, max_batch))
            count -= max_batch
    return total


def expected_refusal(
    items: Sequence[Waiting],
    queue: dict[int, Waiting],
    now_ms: int,
    free_ms: int,
    limits: tuple[int, int],
) -> Reason | None:
    """The rules of admission, written out."""
    max_queued, max_batch = limits
    deadline = items[0].deadline_ms
    ahead = [w for w in queue.values() if w.order < items[0].order]
    if deadline <= now_ms:
        return Reason.DEADLINE_PASSED
    if now_ms + time_for(items, max_batch) > deadline:
        return Reason.DEADLINE_INFEASIBLE
    if len(queue) + len(items) > max_queued:
        return Reason.QUEUE_FULL
    if max(now_ms, free_ms) + time_for([*ahead, *items], max_batch) > deadline:
        return Reason.DEADLINE_UNREACHABLE
    return None


def check_batch(batch: Batch, queue: dict[int, Waiting], now_ms: int, max_batch: int) -> None:
    """What every batch must be, given what waited."""
    members = [queue[number] for number in batch.items]
    mates = sorted((w for w in queue.values() if w.key == batch.key), key=lambda w: w.order)
    assert 1 <= len(members) <= max_batch
    assert members[0] == min(queue.values(), key=lambda w: w.order)
    assert members == mates[: len(members)]  # one key, in order, none skipped
    assert all(member.deadline_ms > now_ms for member in members)
    cost = COSTS.get(batch.key)
    if cost is None:
        assert len(members) == min(len(mates), max_batch)
        return

    def harms(size: int) -> bool:
        """Whether a batch of so many makes a member late that could be in time alone."""
        return any(
            now_ms + cost.of(1) <= mate.deadline_ms < now_ms + cost.of(size)
            for mate in mates[:size]
        )

    assert len(members) == 1 or not harms(len(members))
    if len(members) < min(len(mates), max_batch):
        assert harms(len(members) + 1)  # no artificial smallness


def live(arrivals: Sequence[Arrival], max_queued: int, max_batch: int) -> Day:
    """A day of arrivals before an engine that takes just what batches cost; checks as it goes."""
    policy = Batching(max_queued, max_batch, COSTS.get)
    day, queue, leaving = Day(), dict[int, Waiting](), dict[int, list[int]]()
    coming = sorted(enumerate(arrivals), key=lambda pair: (pair[1].at_ms, pair[0]))
    free_ms, number = 0, 0
    for now_ms in range(400):
        if now_ms >= free_ms:
            policy.idle()
        while coming and coming[0][1].at_ms <= now_ms:
            _, arrival = coming.pop(0)
            items = [
                Waiting(number + place, key, arrival.priority, now_ms + arrival.patience_ms)
                for place, key in enumerate(arrival.keys)
            ]
            number += len(items)
            reason = expected_refusal(items, queue, now_ms, free_ms, (max_queued, max_batch))
            verdict = policy.admit(items, now_ms)
            assert (verdict.reason if isinstance(verdict, Refused) else None) is reason
            if isinstance(verdict, Refused):
                retries = (Reason.QUEUE_FULL, Reason.DEADLINE_UNREACHABLE)
                assert (verdict.retry_after_ms is not None) == (reason in retries)
                continue
            new = {waiting.item: waiting for waiting in items}
            queue |= new
            day.admitted |= new
            if arrival.leaves_after_ms is not None:
                leaving.setdefault(now_ms + arrival.leaves_after_ms, []).extend(new)
        gone = [one for one in leaving.pop(now_ms, []) if one in queue]
        policy.cancel(gone)
        late = policy.expire(now_ms)
        assert set(late) == {
            n for n, w in queue.items() if w.deadline_ms <= now_ms and n not in gone
        }
        for one in [*gone, *late]:
            day.ends[one] += 1
            del queue[one]
        if now_ms >= free_ms:
            batch = policy.next_batch(now_ms)
            assert (batch is None) == (not queue)  # a free engine never idles while work waits
            if batch is not None:
                check_batch(batch, queue, now_ms, max_batch)
                cost = COSTS.get(batch.key, Cost(1, 0))
                free_ms = now_ms + round(cost.of(len(batch.items)))
                for one in batch.items:
                    day.ends[one] += 1
                    del queue[one]
        assert len(policy) == len(queue) <= max_queued
        assert policy.depth() == Counter(w.priority for w in queue.values())
    assert not queue
    return day


@given(ARRIVALS, st.integers(1, 12), st.integers(1, 4))
def test_whatever_comes_the_rules_hold_and_each_item_leaves_exactly_once(
    arrivals: list[Arrival], max_queued: int, max_batch: int
) -> None:
    day = live(arrivals, max_queued, max_batch)

    assert day.ends == Counter(day.admitted.keys())


@given(ARRIVALS, st.integers(1, 4))
def test_adding_mates_never_makes_the_head_miss_a_deadline_it_could_meet(
    arrivals: list[Arrival], max_batch: int
) -> None:
    policy = Batching(1000, max_batch, COSTS.get)
    waiting = [
        Waiting(number, "a", arrival.priority, 1 + arrival.patience_ms)
        for number, arrival in enumerate(arrivals)
    ]
    for one in waiting:
        policy.admit([one], 0)
    policy.expire(0)

    batch = policy.next_batch(0)

    if batch is not None:
        head = waiting[batch.items[0]]
        alone, together = COSTS["a"].of(1), COSTS["a"].of(len(batch.items))
        assert together <= head.deadline_ms or alone > head.deadline_ms


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
