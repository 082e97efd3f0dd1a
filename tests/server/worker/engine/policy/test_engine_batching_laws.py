"""What holds of the batching policy whatever comes, over whole days and at single moments.

Time is in whole milliseconds and passed in; nothing here sleeps.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import example, given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import (
    Admitted,
    Batch,
    Batching,
    Reason,
    Refused,
    Waiting,
)
from tectum_server.worker.engine.policy.cost import Cost, CostModel

CONTROL, INTERACTIVE, BULK = 1, 2, 3
COSTS: dict[Hashable, Cost] = {"a": Cost(3, 2), "b": Cost(0, 7)}  # nothing is known of "c"


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


def _alone(key: str, priority: int, patience_ms: int) -> Arrival:
    """One item at the very beginning."""
    return Arrival(0, (key,), priority, patience_ms, None)


def time_for(items: Iterable[Waiting], max_batch: int, last: Hashable | None = None) -> float:
    """Milliseconds for items run key by key in full batches, one batch after another.

    If there are more of the last one's key, if given, than one batch takes, then its last batch is
    full too, and it all takes a tenth more.
    """
    total, margin = 0.0, 1.0
    for key, count in Counter(waiting.key for waiting in items).items():
        cost = COSTS.get(key)
        if cost is not None and key == last and count > max_batch:
            count, margin = max_batch * math.ceil(count / max_batch), 1.1
        while cost is not None and count > 0:
            total += cost.of(min(count, max_batch))
            count -= max_batch
    return margin * total


@dataclass(frozen=True)
class Ran:
    """A batch that has ended."""

    ended_ms: int
    took_ms: int
    classes: tuple[int, ...]


def speed(
    priority: int, queue: dict[int, Waiting], now_ms: int, ran: Sequence[Ran], kept_share: float
) -> float:
    """Share of the engine that a class may count on.

    Not what those above had in the last second, a batch counting 1/e after one, nor what is kept
    for classes below that wait; CONTROL may count on all of it.
    """
    if priority == CONTROL:
        return 1
    above = sum(
        one.took_ms
        * sum(member < priority for member in one.classes)
        / len(one.classes)
        * math.exp((one.ended_ms - now_ms) / 1000)
        / 1000
        for one in ran
    )
    below = {w.priority for w in queue.values() if w.priority > priority}
    return max(1 - min(above, 1) - kept_share * len(below), kept_share, 0.01)


def expected_refusal(
    items: Sequence[Waiting],
    queue: dict[int, Waiting],
    now_ms: int,
    free_ms: int,
    limits: tuple[int, int],
    pace: float,
) -> Reason | None:
    """The rules of admission, written out."""
    max_queued, max_batch = limits
    deadline = items[0].deadline_ms
    ahead = [w for w in queue.values() if w.order < items[0].order]
    if deadline <= now_ms:
        return Reason.DEADLINE_PASSED
    if now_ms + time_for(items, max_batch) > deadline:
        return Reason.DEADLINE_INFEASIBLE
    kept_free = max_queued * {CONTROL: 0, INTERACTIVE: 1, BULK: 2}[items[0].priority] // 8
    places = max_queued if len(queue) <= kept_free else max_queued - kept_free
    if len(queue) + len(items) > places:
        return Reason.QUEUE_FULL
    takes = time_for([*ahead, *items], max_batch, last=items[-1].key)
    own = time_for(items, max_batch)
    waits = max(free_ms - now_ms, 0) + takes - own  # for so long others may come and overtake
    if now_ms + waits / pace + own > deadline:
        return Reason.DEADLINE_UNREACHABLE
    return None


def check_batch(
    batch: Batch, queue: dict[int, Waiting], now_ms: int, max_batch: int, *, owes: bool
) -> None:
    """What every batch must be, given what waited."""
    members = [queue[number] for number in batch.items]
    first = members[0].priority
    if not owes or first == CONTROL:
        assert members[0] == min(queue.values(), key=lambda w: w.order)
        first = CONTROL

    def order(waiting: Waiting) -> tuple[bool, tuple[int, bool, int, int]]:
        """A class that is owed something goes first; which, `test_engine_owed` knows."""
        return (waiting.priority != first, waiting.order)

    mates = sorted((w for w in queue.values() if w.key == batch.key), key=order)
    assert 1 <= len(members) <= max_batch
    assert members[0] == min(queue.values(), key=order)
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


def live(
    arrivals: Sequence[Arrival], max_queued: int, max_batch: int, kept_share: float = 0.0
) -> Day:
    """A day of arrivals before an engine that takes just what batches cost; checks as it goes."""
    policy = Batching(max_queued, max_batch, COSTS.get, kept_share=kept_share)
    day, queue, leaving = Day(), dict[int, Waiting](), dict[int, list[int]]()
    coming = sorted(enumerate(arrivals), key=lambda pair: (pair[1].at_ms, pair[0]))
    free_ms, number = 0, 0
    running: Ran | None = None
    ran = list[Ran]()
    for now_ms in range(400):
        if now_ms >= free_ms:
            policy.idle(now_ms)
            if running is not None:
                ran.append(replace(running, ended_ms=now_ms))
                running = None
        while coming and coming[0][1].at_ms <= now_ms:
            _, arrival = coming.pop(0)
            items = [
                Waiting(number + place, key, arrival.priority, now_ms + arrival.patience_ms)
                for place, key in enumerate(arrival.keys)
            ]
            number += len(items)
            pace = speed(arrival.priority, queue, now_ms, ran, kept_share)
            reason = expected_refusal(items, queue, now_ms, free_ms, (max_queued, max_batch), pace)
            verdict = policy.admit(items, now_ms)
            assert (verdict.reason if isinstance(verdict, Refused) else None) is reason
            if isinstance(verdict, Refused):
                retries = (Reason.QUEUE_FULL, Reason.DEADLINE_UNREACHABLE)
                assert (verdict.retry_after_ms is not None) == (reason in retries)
                if verdict.forecast is not None:  # what it takes is more than what is left
                    assert verdict.forecast.takes_ms > verdict.forecast.left_ms
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
            assert policy.pause(now_ms) == 0  # what such short batches would allow is no time
            batch = policy.next_batch(now_ms)
            assert (batch is None) == (not queue)  # it never idles while work waits
            if batch is not None:
                check_batch(batch, queue, now_ms, max_batch, owes=kept_share > 0)
                cost = COSTS.get(batch.key, Cost(1, 0))
                free_ms = now_ms + round(cost.of(len(batch.items)))
                classes = tuple(queue[one].priority for one in batch.items)
                running = Ran(free_ms, free_ms - now_ms, classes)
                for one in batch.items:
                    day.ends[one] += 1
                    del queue[one]
        assert len(policy) == len(queue) <= max_queued
        assert policy.depth() == Counter(w.priority for w in queue.values())
    assert not queue
    return day


@given(ARRIVALS, st.integers(1, 12), st.integers(1, 4), st.sampled_from([0.0, 0.3]))
def test_whatever_comes_the_rules_hold_and_each_item_leaves_exactly_once(
    arrivals: list[Arrival], max_queued: int, max_batch: int, kept_share: float
) -> None:
    day = live(arrivals, max_queued, max_batch, kept_share)

    assert day.ends == Counter(day.admitted.keys())


@given(st.integers(1, 2000), st.integers(1, 400), st.integers(1, 4000), st.integers(1, 700))
def test_after_a_stall_a_class_is_served_again_however_slow_it_seemed(
    seemed_ms: int, patience_ms: int, takes_ms: int, pause_ms: int
) -> None:
    costs = CostModel()
    for size in (1, 2, 4, 8):
        costs.observe("a", size, seemed_ms)
    policy, now_ms, last = Batching(100, 8, costs.cost), 0, list[bool]()
    takes_ms = min(takes_ms, patience_ms)
    long_ms = 12 * max(1000, 10 * seemed_ms)
    pause_ms = max(pause_ms, long_ms // 12_000)  # so many arrivals are enough
    for number in range(long_ms // pause_ms):
        now_ms += pause_ms
        waiting = Waiting(number, "a", CONTROL, now_ms + patience_ms)
        last.append(isinstance(policy.admit([waiting], now_ms), Admitted))
        if policy.next_batch(now_ms) is not None:  # the engine is fast again, and has time
            costs.observe("a", 1, takes_ms)
            policy.idle(now_ms)

    assert all(last[-10:])


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


@given(ARRIVALS, st.integers(1, 8), st.integers(1, 30))
@example([_alone("b", CONTROL, 7), _alone("b", CONTROL, 6), _alone("b", INTERACTIVE, 23)], 2, 1)
def test_with_a_limit_a_batch_is_within_it_or_is_one_item_or_controls_own(
    arrivals: list[Arrival], max_batch: int, max_block_ms: int
) -> None:
    limited, free = (Batching(1000, max_batch, COSTS.get, limit) for limit in (max_block_ms, None))
    waiting = [
        Waiting(number, arrival.keys[0], arrival.priority, 1 + arrival.patience_ms)
        for number, arrival in enumerate(arrivals)
    ]
    let_in = list[int]()
    for one in waiting:
        taken, told = limited.admit([one], 0), free.admit([one], 0)
        if isinstance(taken, Refused):
            # Smaller batches take longer; what comes later than CONTROL reckons with them.
            assert taken == told or one.priority != CONTROL
            free.cancel([one.item])
        elif isinstance(told, Refused):
            # Others fill the last batch; of small batches that is less.
            assert one.priority != CONTROL
            assert sum(waiting[n].key == one.key for n in [*let_in, one.item]) > max_batch
            limited.cancel([one.item])
        else:
            let_in.append(one.item)
    comes = any(one.priority == CONTROL for one in waiting)

    batch, large = limited.next_batch(0), free.next_batch(0)

    assert (batch is None) == (large is None)
    if batch is None or large is None:
        return
    size, cost = len(batch.items), COSTS.get(batch.key)
    assert batch.items == large.items[:size]  # the same order, and the same first
    if not comes or cost is None:
        assert batch == large
        return
    alone = size == 1 or all(waiting[number].priority == CONTROL for number in batch.items)
    assert alone or cost.of(size) <= max_block_ms
    if size < len(large.items):  # no smaller than it must be
        assert cost.of(size + 1) > max_block_ms
        assert waiting[large.items[size]].priority != CONTROL
