"""What CONTROL meets beside bulk work on a worker that nobody has set anything of, in counted time.

A batch of n costs 8 + 15n ms: of 32 pictures, twice what a CONTROL call has by default.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tectum_server.worker.engine.policy.batching import Batching
from tectum_server.worker.engine.policy.cost import Cost
from tectum_server.worker.engine.replay.arrivals import Arrival, Told
from tectum_server.worker.engine.replay.simulation import simulate
from tectum_server.worker.jobs import Priority
from tectum_server.worker.settings import WorkerSettings

COST = Cost(8, 15)
SECONDS = 30
PICTURES = 32


def shipped(**changes: Any) -> WorkerSettings:
    return WorkerSettings(repository="models", models=("one",), **changes)


def policy(settings: WorkerSettings) -> Batching:
    """As an engine with these settings has it."""
    told = settings.for_engine()
    return Batching(
        told["max_queued_items"],
        told["max_batch"],
        lambda _: COST,
        told["max_block_ms"],
        told["kept_share"],
        told["calls_block_ms"],
    )


def patience_ms(settings: WorkerSettings, priority: Priority) -> int:
    """What a call of a class has that sets no deadline."""
    control, bulk = settings.control_deadline, settings.bulk_deadline
    return round(1000 * (control if priority == Priority.CONTROL else bulk))


def bulk_work(settings: WorkerSettings) -> list[Arrival]:
    """More than can be done."""
    due_ms = patience_ms(settings, Priority.BULK)
    times = range(0, 1000 * SECONDS, 400)
    return [Arrival(at, ("a",) * PICTURES, Priority.BULK, due_ms) for at in times]


def control_calls(settings: WorkerSettings, key: str) -> list[Arrival]:
    """Five a second, by chance; the first comes while a large batch runs."""
    draw, at_ms, found = random.Random(0), 100.0, list[Arrival]()
    due_ms = patience_ms(settings, Priority.CONTROL)
    while at_ms < 1000 * SECONDS:
        found.append(Arrival(int(at_ms), (key,), Priority.CONTROL, due_ms))
        at_ms += draw.expovariate(5 / 1000)
    return found


def day(settings: WorkerSettings, *classes: list[Arrival]) -> list[Told]:
    arrivals = sorted((one for some in classes for one in some), key=lambda one: one.at_ms)
    return simulate(policy(settings), arrivals, lambda _, size: COST.of(size))


def both(settings: WorkerSettings, key: str) -> tuple[list[Told], list[Told]]:
    """What becomes of bulk work, and of CONTROL beside it."""
    told = day(settings, bulk_work(settings), control_calls(settings, key))
    return (
        [one for one in told if one.arrival.priority == Priority.BULK],
        [one for one in told if one.arrival.priority == Priority.CONTROL],
    )


def pictures(told: list[Told]) -> int:
    """Answered before the last call came."""
    done = [one for one in told if one.answered_ms is not None]
    return sum(len(one.arrival.keys) for one in done if (one.answered_ms or 0) <= 1000 * SECONDS)


@pytest.mark.parametrize("key", ["a", "b"], ids=["the same", "something else"])
def test_control_is_in_time_beside_bulk_work_on_a_worker_that_nobody_has_set_anything_of(
    key: str,
) -> None:
    _, control = both(shipped(), key)
    _, without = both(shipped(max_block_ms=0), key)

    assert len(control) > 100
    assert all(one.in_time for one in control[1:])  # the very first nobody had expected
    assert sum(one.in_time for one in without) < 0.7 * len(without)


@pytest.mark.parametrize("key", ["a", "b"], ids=["the same", "something else"])
def test_bulk_work_gets_no_less_done_for_it_than_the_smaller_batches_cost(key: str) -> None:
    (limited, control), (free, _) = both(shipped(), key), both(shipped(max_block_ms=0), key)
    most = COST.within(250 / 4, PICTURES)
    used_ms = COST.of(1) * sum(one.in_time for one in control)

    assert pictures(limited) >= 0.95 * (1000 * SECONDS - used_ms) * most / COST.of(most)
    assert pictures(limited) >= 0.75 * pictures(free)


@pytest.mark.parametrize("beside", [[], [Priority.INTERACTIVE]])
def test_where_nobody_controls_batches_are_as_large_as_they_can_be(beside: list[Priority]) -> None:
    settings, free = shipped(), shipped(max_block_ms=0)
    bulk = bulk_work(settings)
    others = [
        [Arrival(at, ("a",), priority, 5000) for at in range(3, 1000 * SECONDS, 170)]
        for priority in beside
    ]

    found, wanted = day(settings, bulk, *others), day(free, bulk, *others)

    assert [one.answered_ms for one in found] == [one.answered_ms for one in wanted]
    assert any(one.answered_ms for one in found)
