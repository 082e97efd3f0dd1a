"""What the engine is at: when it will have finished, and what each batch took of its time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Batching, Waiting
from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.policy.under_way import UnderWay

CONTROL, BULK = 1, 3


def batch(*items: int) -> list[Waiting]:
    return [Waiting(item, "key", BULK, 10_000, item) for item in items]


def test_a_batch_takes_from_its_beginning_to_its_end() -> None:
    under_way = UnderWay()
    under_way.began(batch(1), 30, now_ms=100)
    assert (under_way.since_ms, under_way.until_ms) == (100, 130)

    ran = under_way.ended(140)

    assert ran is not None
    assert ran.took_ms == 40
    assert under_way.until_ms == 0
    assert under_way.ended(150) is None


def test_one_behind_another_begins_when_that_ends() -> None:
    under_way = UnderWay()
    under_way.began(batch(1), 30, now_ms=100)
    under_way.began(batch(2), 50, now_ms=110)
    assert under_way.until_ms == 180
    assert [one.item for one in under_way.members] == [1, 2]
    assert under_way.requests == {1, 2}

    first = under_way.ended(120)
    assert (under_way.since_ms, under_way.until_ms) == (120, 170)
    second = under_way.ended(200)

    assert first is not None
    assert second is not None
    assert (first.took_ms, second.took_ms) == (20, 80)


def test_what_comes_to_nothing_leaves_the_one_before_it_as_it_is() -> None:
    under_way = UnderWay()
    under_way.began(batch(1), 30, now_ms=100)
    under_way.began(batch(2), 50, now_ms=110)

    ran = under_way.ended(115, last=True)

    assert ran is not None
    assert ([one.item for one in ran.members], ran.took_ms) == ([2], 0)
    assert (under_way.since_ms, under_way.until_ms) == (100, 130)


def test_what_waits_before_it_begins_keeps_the_engine_so_much_longer() -> None:
    under_way = UnderWay()
    under_way.began(batch(1), 30, now_ms=100)

    under_way.delayed(20)

    assert (under_way.since_ms, under_way.until_ms) == (100, 150)
    ran = under_way.ended(140)
    assert ran is not None
    assert ran.took_ms == 40
    under_way.delayed(20)  # nothing is there to be
    assert under_way.until_ms == 0


def test_of_two_batches_the_last_is_delayed() -> None:
    under_way = UnderWay()
    under_way.began(batch(1), 30, now_ms=100)
    under_way.began(batch(2), 50, now_ms=110)

    under_way.delayed(7)

    assert under_way.until_ms == 187
    under_way.ended(120)
    assert (under_way.since_ms, under_way.until_ms) == (120, 177)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from(["began", "ended"])),
        max_size=30,
    )
)
def test_no_millisecond_is_counted_twice(steps: list[tuple[int, int, str]]) -> None:
    under_way, now_ms, busy_ms, took_ms = UnderWay(), 0, 0, 0

    for number, (passed, takes, what) in enumerate(steps):
        busy_ms += passed if under_way.members else 0
        now_ms += passed
        if what == "began":
            under_way.began(batch(number), takes, now_ms)
        elif (ran := under_way.ended(now_ms)) is not None:
            took_ms += ran.took_ms
    last = now_ms - under_way.since_ms if under_way.members else 0

    assert took_ms + last == busy_ms


# ---------------------------------------------------------------- giving it more


def policy(waiting: int, priority: int = BULK) -> Batching:
    made = Batching(100, 4, lambda _: Cost(10.0, 1.0))
    for item in range(waiting):
        made.admit([Waiting(item, "key", priority, 100_000, item)], 0)
    return made


@pytest.mark.parametrize(("waiting", "more"), [(4, False), (7, False), (8, True), (11, True)])
def test_another_batch_goes_behind_one_if_it_is_as_large_as_any(waiting: int, more: bool) -> None:
    made = policy(waiting)
    assert made.next_batch(0) is not None

    assert made.takes_more(1) is more


def test_none_goes_behind_another_while_control_comes() -> None:
    made = policy(12)
    made.next_batch(0)
    made.admit([Waiting(99, "key", CONTROL, 100_000, 99)], 1)

    assert not made.takes_more(1)


def test_no_batch_of_streams_goes_behind_another() -> None:
    made = policy(4)
    for item in range(10, 16):
        made.admit([Waiting(item, "key", BULK, 100_000, item, turn_ms=0)], 0)
    made.next_batch(0)

    assert not made.takes_more(1)
    made.idle(20)
    assert made.next_batch(20) is not None


def test_nobody_is_put_into_a_batch_behind_another_who_would_be_late_by_it() -> None:
    costs = [Cost(10.0, 1.0)]
    made = Batching(100, 4, lambda _: costs[-1])
    for item in range(4):
        made.admit([Waiting(item, "key", BULK, 100_000, item)], 0)
    made.next_batch(0)  # until 14
    for item in range(10, 14):
        made.admit([Waiting(item, "key", BULK, 28, item)], 0)
    assert made.takes_more(0)

    costs.append(Cost(11.0, 1.0))

    assert not made.takes_more(0)  # four would be done at 29
    batch = made.next_batch(0)
    assert batch is not None
    assert batch.items == (10, 11, 12)


def test_who_asks_is_told_of_both_batches_that_are_before_it() -> None:
    made = policy(8)
    made.next_batch(0)
    made.next_batch(0)
    late = [Waiting(50, "other", BULK, 41, 50)]  # 14 and 14 ms, then its own 11

    assert type(made.admit(late, 0)).__name__ == "Admitted"
    refused = made.admit([Waiting(51, "other", BULK, 38, 51)], 0)

    assert type(refused).__name__ == "Refused"
