"""What has to be prepared before it runs: what it is promised, and what comes of it over a day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.batching import Admitted, Batching, Reason, Refused, Waiting
from tectum_server.worker.engine.policy.cost import Cost, CostModel, Preparation
from tectum_server.worker.engine.replay.arrivals import Arrival
from tectum_server.worker.engine.replay.simulation import simulate

CONTROL, INTERACTIVE, BULK = 1, 2, 3
SMALL, LARGE = Preparation("resize", 4), Preparation("resize", 60)
COST = Cost(5, 12)


def cost(key: Hashable) -> Cost | None:
    """A preparation takes a millisecond for each of its size."""
    return Cost(0, key.size) if isinstance(key, Preparation) else COST


def batching(max_batch: int = 8, max_block_ms: int | None = None) -> Batching:
    return Batching(100, max_batch, cost, max_block_ms)


def one(
    item: int,
    deadline_ms: int,
    needs: Preparation | None = None,
    priority: int = INTERACTIVE,
    key: str = "a",
) -> Waiting:
    return Waiting(item, key, priority, deadline_ms, preparation=needs)


# ---------------------------------------------------------------- what is promised


def test_a_deadline_is_held_against_both() -> None:
    policy = batching()

    refused = policy.admit([one(0, 76, LARGE)], 0)

    assert isinstance(refused, Refused)
    assert refused.reason is Reason.DEADLINE_INFEASIBLE
    assert refused.forecast is not None
    assert refused.forecast.takes_ms == 60 + 17
    assert policy.admit([one(1, 17)], 0) == Admitted()
    assert policy.admit([one(2, 77 + 17, LARGE)], 0) == Admitted()


def test_of_many_items_one_is_prepared_while_others_run() -> None:
    def admitted(each: Preparation, within_ms: int) -> bool:
        items = [one(item, within_ms, each) for item in range(8)]
        return isinstance(batching().admit(items, 0), Admitted)

    together, small = round(COST.of(8)), Preparation("resize", 6)
    assert admitted(small, small.size + together)
    assert not admitted(small, small.size + together - 1)
    assert admitted(LARGE, 8 * LARGE.size + together // 8 + 1)
    assert not admitted(LARGE, 8 * LARGE.size + together // 8)


def test_what_is_to_be_prepared_before_it_counts() -> None:
    policy = batching()
    policy.admit([one(0, 1000, LARGE)], 0)
    policy.begin_preparing(0)

    taken = policy.admit([one(1, 1000, SMALL, priority=CONTROL)], 0)
    late = policy.admit([one(2, 60 + 4 + 17, SMALL, priority=CONTROL)], 0)

    assert taken == Admitted()
    assert isinstance(late, Refused)  # the one before may begin while this is prepared
    assert late.reason is Reason.DEADLINE_UNREACHABLE


def test_an_engine_that_is_busy_for_longer_begins_with_nobody_else() -> None:
    policy = batching()
    for item in range(16):
        policy.admit([one(item, 1000, priority=BULK)], 0)
    assert policy.next_batch(0) is not None  # of eight, while eight others are ready
    done_ms = round(COST.of(8) + COST.of(1))

    assert isinstance(policy.admit([one(20, done_ms - 1, SMALL, CONTROL)], 0), Refused)
    assert isinstance(policy.admit([one(21, done_ms, SMALL, CONTROL)], 0), Admitted)


def test_the_engine_takes_what_is_ready_and_no_other() -> None:
    policy = batching()
    policy.admit([one(0, 500, SMALL, priority=CONTROL)], 0)
    policy.admit([one(1, 1000)], 0)
    assert policy.unready
    begun = policy.begin_preparing(0)
    assert begun is not None
    assert begun.item == 0

    first = policy.next_batch(0)
    none = policy.next_batch(0)
    ready = policy.end_preparing()
    then = policy.next_batch(4)

    assert first is not None
    assert first.items == (1,)
    assert none is None
    assert ready
    assert then is not None
    assert then.items == (0,)


# ---------------------------------------------------------------- days


def camera(
    priority: int, every_ms: int, needs: Preparation | None, patience_ms: int
) -> list[Arrival]:
    """Two items at a time of BULK, else one."""
    keys = ("a", "a") if priority == BULK else ("a",)
    return [
        Arrival(at_ms, keys, priority, patience_ms, preparation=needs)
        for at_ms in range(priority, 20_000, every_ms)
    ]


def test_control_is_in_time_beside_large_pictures_of_bulk() -> None:
    costs = CostModel()
    for size in (1, 2, 4, 8):
        costs.observe("a", size, COST.of(size))
    for needs in (SMALL, LARGE):
        costs.observe(needs.kind, needs.size, needs.size)
    arrivals = [*camera(CONTROL, 100, SMALL, 150), *camera(BULK, 200, LARGE, 60_000)]
    policy = Batching(100, 8, costs.cost, max_block_ms=40, kept_share=0.05)

    told = simulate(
        policy,
        sorted(arrivals, key=lambda one: one.at_ms),
        lambda _, items: COST.of(items),
        costs.observe,
    )

    assert all(one.in_time for one in told)  # so none is refused either
    control = [one.latency_ms or 0 for one in told if one.arrival.priority == CONTROL]
    assert max(control) <= LARGE.size + SMALL.size + COST.of(2) + COST.of(1)


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        at_ms=st.integers(0, 80),
        keys=st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(tuple),
        priority=st.sampled_from([CONTROL, INTERACTIVE, BULK]),
        patience_ms=st.integers(0, 300),
        leaves_after_ms=st.none() | st.integers(0, 60),
        preparation=st.none() | st.sampled_from([SMALL, LARGE]),
    ),
    max_size=14,
).map(lambda arrivals: sorted(arrivals, key=lambda one: one.at_ms))


@given(ARRIVALS, st.integers(1, 4), st.sampled_from([0.0, 0.3]))
def test_whatever_comes_each_item_is_prepared_before_it_runs_and_leaves_once(
    arrivals: list[Arrival], max_batch: int, kept_share: float
) -> None:
    policy = Batching(40, max_batch, cost, kept_share=kept_share)
    ran = list[tuple[Hashable, int]]()

    told = simulate(
        policy,
        arrivals,
        lambda _, items: COST.of(items),
        lambda key, size, _: ran.append((key, size)),
    )

    assert len(policy) == 0
    assert not policy.unready
    answered = [one for one in told if one.answered_ms is not None]
    for one in answered:
        needs = one.arrival.preparation
        least_ms = COST.of(1) + (needs.size if needs else 0)
        assert one.latency_ms is not None
        assert one.latency_ms >= least_ms
    for one in told:
        assert one.answered_ms is None or one.reason is None
        gone = one.arrival.leaves_after_ms is not None
        assert one.answered_ms is not None or one.reason is not None or gone
    done = sum(size for key, size in ran if key in ("a", "b"))
    assert done >= sum(len(one.arrival.keys) for one in answered)
    prepared = Counter(key for key, _ in ran)["resize"]
    assert prepared >= sum(len(one.arrival.keys) for one in answered if one.arrival.preparation)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=20),
    st.integers(1, 80),
    st.integers(20, 400),
)
def test_of_requests_that_are_alike_each_that_is_admitted_is_in_time(
    pauses_ms: list[int], size: int, patience_ms: int
) -> None:
    needs, now_ms, arrivals = Preparation("resize", size), 0, list[Arrival]()
    for pause_ms in pauses_ms:
        now_ms += pause_ms
        arrivals.append(Arrival(now_ms, ("a",), CONTROL, patience_ms, preparation=needs))

    told = simulate(batching(max_batch=1), arrivals, lambda *_: COST.of(1))

    assert all(one.in_time for one in told if one.reason is None)
    assert not any(one.reason is Reason.DEADLINE_PASSED for one in told)
    if patience_ms >= size + COST.of(1):
        assert told[0].in_time
