"""Calls and streams whose pictures are to be prepared: whose turn it is then."""

from __future__ import annotations

from collections.abc import Hashable

from tectum_server.worker.engine.policy.batching import (
    Admitted,
    Batch,
    Batching,
    Forecast,
    Reason,
    Refused,
    Waiting,
)
from tectum_server.worker.engine.policy.cost import Cost, Preparation

CONTROL, BULK = 1, 3
FAR = 10**9
NEEDS = Preparation("resize", 20)


def cost(key: Hashable) -> Cost | None:
    """A preparation takes a millisecond for each of its size."""
    return Cost(0, key.size) if isinstance(key, Preparation) else Cost(0, 40)


def batching(max_batch: int = 2, kept_share: float = 0.0) -> Batching:
    return Batching(100, max_batch, cost, kept_share=kept_share)


def call(
    item: int,
    needs: Preparation | None = NEEDS,
    priority: int = CONTROL,
    key: str = "a",
    deadline_ms: int = FAR,
) -> list[Waiting]:
    return [Waiting(item, key, priority, deadline_ms, preparation=needs)]


def place(
    item: int, needs: Preparation | None = NEEDS, deadline_ms: int = FAR, key: str = "frame"
) -> list[Waiting]:
    return [Waiting(item, key, CONTROL, deadline_ms, turn_ms=item, preparation=needs)]


def prepared(policy: Batching, now_ms: int, most: int = 100) -> list[int]:
    """Prepare all that may be, or so many; in which order it was."""
    order = list[int]()
    while len(order) < most and (begun := policy.begin_preparing(now_ms)) is not None:
        order.append(begun.item)
        policy.end_preparing()
    return order


def test_calls_are_prepared_first_and_streams_in_their_turn() -> None:
    policy = batching()
    for waiting in (place(2), place(1), call(3), call(4, priority=BULK)):
        policy.admit(waiting, 0)

    assert prepared(policy, 0) == [3, 1, 2, 4]


def owing(places: int) -> Batching:
    """Streams wait that are owed 40 ms, from 80 on."""
    policy = batching()
    for item in range(places):
        policy.admit(place(item), 0)
    policy.admit(call(90, None), 0)
    policy.admit(call(91, None), 0)
    assert policy.next_batch(0) == Batch("a", (90, 91))
    policy.idle(80)
    return policy


def test_streams_that_are_owed_a_batch_are_prepared_first_and_of_them_no_more_than_that() -> None:
    policy = owing(places=1)
    policy.admit(call(92), 80)
    policy.admit(call(93), 80)
    assert prepared(policy, 80) == [0, 92, 93]
    assert policy.next_batch(80) == Batch("frame", (0,))

    policy = batching()
    for item in range(5):
        policy.admit(place(item), 0)
    for item in range(90, 94):
        policy.admit(call(item, None), 0)
    for now_ms in (0, 80):
        policy.next_batch(now_ms)
        policy.idle(now_ms + 80)  # half of both is one of the streams' batches
    policy.admit(call(94), 160)
    assert prepared(policy, 160) == [0, 1, 94, 2]


def test_who_is_owed_a_batch_keeps_what_is_prepared_of_it() -> None:
    policy = owing(places=1)
    policy.admit(call(92), 80)
    assert prepared(policy, 80, most=1) == [0]

    for item in range(93, 99):
        policy.admit(call(item), 80)

    assert prepared(policy, 80) == [92, 93, 94]
    assert policy.next_batch(80) == Batch("frame", (0,))


def test_streams_that_are_ready_run_while_a_call_is_prepared() -> None:
    policy = batching()
    policy.admit(call(1), 0)
    policy.admit(place(2, None), 0)

    assert policy.next_batch(0) == Batch("frame", (2,))


def test_a_place_is_refused_only_for_what_its_frame_takes_alone_with_its_preparation() -> None:
    policy = batching()
    for item in range(20):
        assert policy.admit(place(item, deadline_ms=60), 0, arrived_ms=0) == Admitted()

    never = policy.admit(place(20, deadline_ms=59), 0, arrived_ms=0)

    alone = Forecast(left_ms=59, takes_ms=60, alone=True)
    assert never == Refused(Reason.DEADLINE_INFEASIBLE, None, alone)
    assert policy.admit(place(21, None, deadline_ms=59), 0, arrived_ms=0) == Admitted()


def test_a_call_reckons_with_preparing_the_streams_that_go_before_it() -> None:
    large = Preparation("resize", 100)
    policy = batching()
    policy.admit(place(0, large), 0)
    policy.admit(call(90, None), 0)
    policy.admit(call(91, None), 0)
    policy.next_batch(0)
    policy.idle(80)  # from now on the stream is owed its batch

    # 180 is when the stream's frame is prepared, 200 the call's; 240 when the stream's has run.
    late, just = (policy.admit(call(92, deadline_ms=ms), 80) for ms in (279, 280))

    assert late == Refused(Reason.DEADLINE_UNREACHABLE, 1, Forecast(199, 200, alone=False))
    assert just == Admitted()


def test_newer_content_is_due_at_its_own_moment_and_prepared_again() -> None:
    policy = batching()
    policy.admit(place(0, deadline_ms=100), 0)
    policy.admit(place(1, deadline_ms=100), 0)
    assert prepared(policy, 0) == [0, 1]

    policy.renew({0: NEEDS, 7: NEEDS}, 500)

    assert policy.unready
    assert policy.expire(1100) == (1,)
    assert prepared(policy, 1100) == [0]
    assert policy.next_batch(1100) == Batch("frame", (0,))


def test_a_place_that_has_been_stale_for_long_is_given_up_unprepared_as_well() -> None:
    policy = batching()
    policy.admit(place(0, deadline_ms=100), 0)

    assert policy.expire(1100) == (0,)
    assert not policy.unready
    assert policy.begin_preparing(1100) is None


def test_a_class_that_is_owed_a_batch_is_prepared_before_control() -> None:
    policy = batching(kept_share=0.25)
    policy.admit(call(0, priority=BULK, key="b"), 0)
    now_ms = 0
    for item in range(1, 9):
        policy.admit(call(item, None), now_ms)
        policy.next_batch(now_ms)
        now_ms += 200
        policy.idle(now_ms)
    policy.admit(call(9), now_ms)

    assert prepared(policy, now_ms) == [0, 9]


def test_what_the_engine_must_prepare_itself_counts_for_the_operators_limit() -> None:
    policy = Batching(100, 8, lambda key: Cost(0, getattr(key, "size", 10)), 60)
    policy.admit(call(90, None, key="other"), 0)
    policy.next_batch(0)
    policy.idle(0)
    for item in range(6):
        policy.admit(place(item), 0)
    prepared(policy, 0)
    assert len(policy.upcoming(0)) == 6

    for item in range(6):
        policy.renew({item: NEEDS}, FAR)

    assert policy.next_batch(0) == Batch("frame", (0, 1))  # each takes 10 ms, and lacks 20
