"""What is owed to who waits: by example, by law, and what becomes of it on a busy engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Admitted, Batching, Waiting
from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.policy.owed import Owed

CONTROL, INTERACTIVE, BULK = 1, 2, 3
COSTS: dict[Hashable, Cost] = {"a": Cost(0, 10), "b": Cost(0, 2)}


def test_who_waits_through_a_batch_is_owed_its_share_of_it() -> None:
    owed = Owed(0.1, CONTROL)

    owed.ran([CONTROL, INTERACTIVE], [CONTROL, BULK], 50)

    assert owed.debt(BULK) == 5
    assert owed.debt(CONTROL) == 0  # nobody overtakes it


def test_what_it_gets_in_others_batches_counts() -> None:
    owed = Owed(0.1, CONTROL)
    owed.ran([INTERACTIVE], [BULK], 100)

    owed.ran([INTERACTIVE, INTERACTIVE, INTERACTIVE, BULK], [BULK], 40)

    assert owed.debt(BULK) == pytest.approx(10 + 4 - 10)


def test_who_waits_for_nothing_is_owed_nothing() -> None:
    owed = Owed(0.1, CONTROL)
    owed.ran([INTERACTIVE], [BULK], 100)

    owed.ran([INTERACTIVE], [], 100)

    assert owed.debt(BULK) == 0


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([CONTROL, INTERACTIVE, BULK]), min_size=1, max_size=5),
            st.sets(st.sampled_from([CONTROL, INTERACTIVE, BULK])),
            st.integers(0, 1000),
        ),
        max_size=20,
    ),
    st.floats(0, 0.5),
)
def test_no_debt_is_below_zero_nor_above_the_share_of_all_time(
    batches: list[tuple[list[int], set[int], int]], share: float
) -> None:
    owed, total = Owed(share, CONTROL), 0

    for members, waited, took_ms in batches:
        owed.ran(members, waited, took_ms)
        total += took_ms
        for priority in (CONTROL, INTERACTIVE, BULK):
            assert 0 <= owed.debt(priority) <= share * total + 1e-6


def busy_engine(
    kept_share: float, *, same_key: bool, max_batch: int, above: int, below: int
) -> Counter[int]:
    """Milliseconds of engine time by class, with always more of both classes than can be done."""
    cost = Cost(4, 1)
    policy = Batching(1000, max_batch, lambda _: cost, None, kept_share)
    got, number, now_ms = Counter[int](), 0, 0
    classes = {}
    while now_ms < 10_000:
        depth = policy.depth()
        for priority in (above, below):
            for _ in range(2 * max_batch - depth.get(priority, 0)):
                key = "a" if same_key or priority == above else "b"
                classes[number] = priority
                one = Waiting(number, key, priority, 10**9)
                assert policy.admit([one], now_ms) == Admitted()
                number += 1
        batch = policy.next_batch(now_ms)
        assert batch is not None
        took = round(cost.of(len(batch.items)))
        now_ms += took
        for item in batch.items:
            got[classes[item]] += took / len(batch.items)  # type: ignore[assignment]
        policy.idle(now_ms)
    return got


@settings(max_examples=20)
@given(st.booleans(), st.integers(1, 8), st.sampled_from([(1, 2), (1, 3), (2, 3)]))
def test_however_busy_a_class_that_waits_has_its_share_and_no_more(
    same_key: bool, max_batch: int, classes: tuple[int, int]
) -> None:
    above, below = classes

    got = busy_engine(0.05, same_key=same_key, max_batch=max_batch, above=above, below=below)

    # Before CONTROL goes only who is owed four batches, which is that much later.
    assert 0.044 < got[below] / got.total() < 0.055


def test_without_a_share_it_waits_for_as_long_as_anybody_comes() -> None:
    got = busy_engine(0.0, same_key=False, max_batch=4, above=INTERACTIVE, below=BULK)

    assert got[BULK] == 0


def test_what_is_owed_is_run_as_soon_as_its_batch_is_paid_for() -> None:
    policy = Batching(100, 1, COSTS.get, None, 0.1)
    for number in range(4):
        policy.admit([Waiting(number, "a", INTERACTIVE, 10_000)], 0)
    policy.admit([Waiting(9, "b", BULK, 10_000)], 0)

    ran = []
    for now_ms in range(0, 50, 10):
        policy.idle(now_ms)
        batch = policy.next_batch(now_ms)
        assert batch is not None
        ran.append(batch.items)

    assert ran == [(0,), (1,), (9,), (2,), (3,)]  # 1 ms owed after the first, 2 after the second


def test_a_batch_that_is_owed_is_within_the_limit_too() -> None:
    policy = owing(10)

    batch = policy.next_batch(10)

    assert batch is not None
    assert batch.items == (1, 2)  # 4 ms of the 10 that are owed, and at most 5 a batch


@pytest.mark.parametrize(("took_ms", "first"), [(15, 10), (16, 1)])
def test_control_is_overtaken_by_who_is_owed_four_batches(took_ms: int, first: int) -> None:
    policy = owing(took_ms)
    policy.admit([Waiting(10, "a", CONTROL, 10_000)], took_ms)

    batch = policy.next_batch(took_ms)

    assert batch is not None
    assert batch.items[0] == first


def owing(took_ms: int) -> Batching:
    """CONTROL's batch has run for so long while eight items waited, with all of it owed to them."""
    policy = Batching(100, 8, COSTS.get, 5, 1.0)
    policy.admit([Waiting(0, "a", CONTROL, 10_000)], 0)
    for number in range(1, 9):
        policy.admit([Waiting(number, "b", BULK, 10_000)], 0)
    policy.next_batch(0)
    policy.idle(took_ms)
    return policy
