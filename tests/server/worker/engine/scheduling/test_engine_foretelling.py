"""What the engine tells of its queue: a front that believes it refuses as admission would."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st
from tests.server.worker.engine.engines import job
from tests.server.worker.engine.gated import Rig

from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.policy.batching import Admitted, Batching, Reason, Refused, Waiting
from tectum_server.worker.engine.policy.cost import CostModel
from tectum_server.worker.engine.scheduling.foretelling import outlook
from tectum_server.worker.jobs import Priority
from tectum_server.worker.outlook import Asked, Outlook, done

CONTROL, INTERACTIVE, BULK = Priority
USUAL, OTHER = ("arm@1", "embed_images", "pooled"), ("arm@1", "embed_texts")
NOW_MS, LATE_MS = 10_000, 10**7
PRIORITIES = st.sampled_from(Priority)


@dataclass(frozen=True)
class Before:
    """A request that came before."""

    key: tuple[str, ...]
    items: int
    priority: Priority
    patience_ms: int


REQUESTS = st.lists(
    st.builds(
        Before,
        key=st.sampled_from([USUAL, USUAL, USUAL, OTHER]),
        items=st.integers(1, 6),
        priority=PRIORITIES,
        patience_ms=st.integers(100, 2000),
    ),
    max_size=14,
)
BATCHES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(2, 60)), min_size=1, max_size=5
)  # items, ms


def costs(of: list[tuple[int, int]]) -> CostModel:
    """Costs as batches of these sizes took, of both kinds."""
    learnt = CostModel()
    for key in (USUAL, OTHER):
        for items, took_ms in of:
            learnt.observe(key, items, took_ms)
    return learnt


def waiting(
    first: int, key: tuple[str, ...], count: int, priority: Priority, due_ms: int
) -> list[Waiting]:
    """A request's items."""
    one = Waiting(first, key, priority, due_ms, request=first)
    return [replace(one, item=first + number) for number in range(count)]


def busy(
    requests: list[Before],
    learnt: CostModel,
    max_block_ms: int | None,
    running: int,
    waits_ms: int = 0,
) -> Batching:
    """A policy that these came to, one after another.

    Args:
        requests: the first of them run, each in a batch behind the one before, as far as they do.
        learnt: what batches take.
        max_block_ms: as in `Batching`.
        running: so many batches, at most.
        waits_ms: so long the last of them waits before it begins.
    """
    policy = Batching(200, 4, learnt.cost, max_block_ms)
    for number, one in enumerate(requests):
        due_ms = NOW_MS + one.patience_ms
        policy.admit(waiting(100 * number, one.key, one.items, one.priority, due_ms), NOW_MS - 10)
        if number < running:
            policy.next_batch(NOW_MS - 5)
    if running:
        policy.delayed(waits_ms)
    return policy


def told(policy: Batching, learnt: CostModel, now_ms: int = NOW_MS) -> Outlook:
    """What is told of it."""
    found = outlook(policy, learnt, 4, now_ms)
    assert found is not None
    return found


def refused_by(one: Outlook | None, asked: Asked) -> bool:
    """Whether a front would refuse, of which nothing else is under way."""
    moment = done(asked, [one], (), NOW_MS / 1000)
    return moment is not None and round(1000 * (moment - asked.deadline), 6) > 0


def test_an_engine_with_nothing_to_do_tells_nothing() -> None:
    assert outlook(Batching(8, 4, CostModel().cost), CostModel(), 4, NOW_MS) is None


def test_an_engine_that_does_not_know_what_its_work_takes_tells_nothing() -> None:
    policy = busy([Before(USUAL, 1, BULK, 100)], CostModel(), None, running=0)

    assert outlook(policy, CostModel(), 4, NOW_MS) is None


def test_what_is_told_is_small_however_much_waits() -> None:
    learnt = costs([(1, 2)])
    policy = busy([Before(USUAL, 1, BULK, 1000 + n) for n in range(100)], learnt, None, running=0)

    steps = told(policy, learnt).steps

    assert len(steps) == len(Priority) + 4
    assert max(step.due for step in steps) == NOW_MS / 1000 + 1.099
    assert [step.items for step in steps if step.priority == BULK] == [0, 25, 50, 75, 100]


@given(
    requests=REQUESTS,
    batches=BATCHES,
    items=st.integers(1, 8),
    priority=PRIORITIES,
    patience_ms=st.integers(1, 2500),
    max_block_ms=st.none() | st.integers(5, 100),
    running=st.integers(0, 2),
    waits_ms=st.integers(0, 500),
)
def test_whom_a_front_refuses_the_engine_would_refuse(
    requests: list[Before],
    batches: list[tuple[int, int]],
    items: int,
    priority: Priority,
    patience_ms: int,
    max_block_ms: int | None,
    running: int,
    waits_ms: int,
) -> None:
    learnt = costs(batches)
    policy = busy(requests, learnt, max_block_ms, running, waits_ms)
    due_ms = NOW_MS + patience_ms
    one = outlook(policy, learnt, 4, NOW_MS)
    key = (
        USUAL
        if one is None
        else (*(one.usual.model, one.usual.operation), "pooled")[
            : 3 if one.usual.operation == "embed_images" else 2
        ]
    )
    asked = Asked("arm@1", {key[1]: items}, priority, due_ms / 1000)

    front_refuses = refused_by(one, asked)
    verdict = policy.admit(waiting(LATE_MS, key, items, priority, due_ms), NOW_MS)

    if front_refuses:
        assert isinstance(verdict, Refused)
    # And none of whom it would refuse for what waits is let pass who is due last.
    last = all(NOW_MS + other.patience_ms <= due_ms for other in requests)
    if last and isinstance(verdict, Refused) and verdict.reason is Reason.DEADLINE_UNREACHABLE:
        assert front_refuses or (verdict.forecast is not None and verdict.forecast.alone)


@given(
    requests=REQUESTS,
    batches=BATCHES,
    items=st.integers(1, 8),
    priority=PRIORITIES,
    patience_ms=st.integers(1, 2500),
)
def test_of_what_else_waits_a_front_never_thinks_worse_than_the_engine(
    requests: list[Before],
    batches: list[tuple[int, int]],
    items: int,
    priority: Priority,
    patience_ms: int,
) -> None:
    learnt = costs(batches)
    policy = busy(requests, learnt, None, running=0)
    one = outlook(policy, learnt, 4, NOW_MS)
    due_ms = NOW_MS + patience_ms

    for key in (USUAL, OTHER):
        asked = Asked("arm@1", {key[1]: items}, priority, due_ms / 1000)
        admitted = policy.admit(waiting(LATE_MS, key, items, priority, due_ms), NOW_MS)
        policy.cancel(range(LATE_MS, LATE_MS + items))
        assert not (refused_by(one, asked) and isinstance(admitted, Admitted))


def test_fronts_are_told_of_all_batches_under_way_and_of_what_the_last_one_waits() -> None:
    learnt, three = costs([(1, 20)]), [Before(USUAL, 1, BULK, 1000)] * 3
    asked = Asked("arm@1", {USUAL[1]: 1}, BULK, deadline=1e9)

    firsts = []
    for running, waits_ms in ((1, 0), (2, 0), (2, 7)):
        step = told(busy(three, learnt, None, running, waits_ms), learnt).step(asked)
        assert step is not None
        firsts.append(round(1000 * step.first))

    assert firsts == [15, 35, 42]


async def test_a_scheduler_tells_of_what_waits_and_runs_until_nothing_does(rig: Rig) -> None:
    rig.scheduler.costs.observe(("m@v1", "embed_texts"), 1, 500.0)
    before = rig.scheduler.outlook()
    await rig.busy()
    waits = rig.submit("a")
    await asyncio.sleep(0)
    told = rig.scheduler.outlook()

    rig.predictor.open()
    await waits

    assert before is None
    assert told is not None
    assert (told.usual.model, told.usual.operation) == ("m@v1", "embed_texts")
    assert told.at == 100.0
    step = told.step(Asked("m@v1", {"embed_texts": 1}, BULK, deadline=1e9))
    assert step is not None
    assert (step.first, step.items) == (0.5, 1)
    assert rig.scheduler.outlook() is None


async def test_an_engine_tells_its_fronts_of_it(engine: LocalEngine) -> None:
    before = engine.outlooks()
    asked = asyncio.create_task(engine.submit(job()))
    await asyncio.sleep(0)
    first, again = engine.outlooks(), engine.outlooks()

    await asked

    (told,) = first
    assert told is not None
    assert told.usual.operation == "embed_images"
    assert told.price(told.usual.model, "embed_images") is not None
    assert again[0] is told  # all who wait are not asked anew
    assert before == engine.outlooks() == (None,)
