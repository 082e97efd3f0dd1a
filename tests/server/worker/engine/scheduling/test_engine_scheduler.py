"""The shell around the policy: jobs in, results out, with an engine that waits to be let go."""

import asyncio
import types
from pathlib import Path
from typing import Any, cast

import pytest
from tests.server.worker.engine.gated import GatedPredictor, Rig, lengths, refusal, settle

from tectum.v1 import errors_pb2
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.computing.operations import batch_key
from tectum_server.worker.engine.replay.arrivals import Arrival
from tectum_server.worker.engine.replay.recording import Recorder, read_recording
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Item, ItemFailure, Rollout, Sequel
from tectum_server.worker.jobs import Priority as P

# ---------------------------------------------------------------- batches


async def test_a_batch_forms_from_what_waits_while_the_engine_is_busy(rig: Rig) -> None:
    first = await rig.busy()
    later = [rig.submit("a" * size) for size in range(1, 6)]
    await settle()

    rig.predictor.open()

    assert [lengths(await task) for task in later] == [[1], [2], [3], [4], [5]]
    assert lengths(await first) == [5]
    assert rig.predictor.batches == [["first"], ["a", "aa", "aaa", "aaaa", "aaaaa"]]


async def test_items_of_one_job_come_back_in_their_order_over_several_batches() -> None:
    rig = Rig(max_batch=2)
    rig.predictor.open()

    result = await rig.submit("a", "bb", "ccc", "dddd", "eeeee")

    assert lengths(result) == [1, 2, 3, 4, 5]
    assert [len(batch) for batch in rig.predictor.batches] == [2, 2, 1]
    assert result.batch_size == 2
    await rig.scheduler.close()


async def test_control_overtakes_bulk_that_came_first(rig: Rig) -> None:
    other = GatedPredictor(rig.clock)
    other.bundle = types.SimpleNamespace(version="v2")  # another key: no batch with the rest
    other.open()
    await rig.busy()
    bulk = rig.submit("bulk", priority=P.BULK)
    control = rig.submit("control", priority=P.CONTROL, predictor=other)
    await settle()

    rig.predictor.let_go()

    assert lengths(await control) == [7]
    assert not bulk.done()
    rig.predictor.open()
    assert lengths(await bulk) == [4]


async def test_versions_of_a_model_share_no_batch(rig: Rig) -> None:
    newer = GatedPredictor(rig.clock)
    newer.bundle = types.SimpleNamespace(version="v2")
    newer.open()
    await rig.busy()
    old, new = rig.submit("old"), rig.submit("new", predictor=newer)
    await settle()

    rig.predictor.open()

    assert ((await old).version, (await new).version) == ("v1", "v2")
    assert newer.batches == [["new"]]


# ---------------------------------------------------------------- pauses


def pausing(rig: Rig, first_ms: int) -> None:
    """Let a free engine wait so long the first time that something waits, and never again."""
    pauses = iter([first_ms])
    policy = rig.scheduler._policy
    policy.pause = lambda _: next(pauses, 0) if len(policy) else 0  # type: ignore[method-assign,assignment]
    rig.predictor.open()


async def test_whoever_comes_during_a_pause_is_looked_at_at_once(rig: Rig) -> None:
    pausing(rig, 60_000)
    first = rig.submit("a")
    await settle()
    assert rig.predictor.batches == []

    second = rig.submit("bb", priority=P.CONTROL)

    assert lengths(await asyncio.wait_for(second, 10)) == [2]
    assert lengths(await first) == [1]
    assert rig.predictor.batches == [["bb", "a"]]


async def test_a_pause_ends_by_itself(rig: Rig) -> None:
    pausing(rig, 20)

    assert lengths(await asyncio.wait_for(rig.submit("a"), 10)) == [1]


# ---------------------------------------------------------------- recording


async def test_what_comes_and_what_it_takes_is_recorded_refused_or_not(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    rig = Rig(max_queued=2, recorder=Recorder(path))
    rig.predictor.open()
    await rig.submit("a", "bb", priority=P.CONTROL, within=0.5)
    refused = rig.submit("a", "bb", "ccc", within=2.0)
    assert (await refusal(refused)).reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    await rig.scheduler.close()

    found = read_recording(path)

    key = "m@v1/embed_texts"
    assert found.arrivals == (
        Arrival(0, (key, key), P.CONTROL, 500),
        Arrival(0, (key, key, key), P.INTERACTIVE, 2000),
    )
    assert [batch[:2] for batch in found.batches] == [(key, 2)]
    assert "bb" not in path.read_text()  # nothing of what was asked


# ---------------------------------------------------------------- failures


async def test_one_poisoned_item_in_thirty_two_leaves_thirty_one_answers(rig: Rig) -> None:
    rig.predictor.open()
    texts = ["a" * (1 + place) for place in range(32)]
    texts[13] = "poison"

    result = await rig.submit(*texts)

    failed = result.outputs[13]
    assert isinstance(failed, ItemFailure)
    assert failed.reason == errors_pb2.ERROR_REASON_INTERNAL
    assert "poison" not in failed.message  # what went wrong inside stays in the log
    assert lengths(result) == [1 + place for place in range(32) if place != 13]


async def test_a_poisoned_job_does_not_touch_its_neighbours_job(rig: Rig) -> None:
    await rig.busy()
    bad, good = rig.submit("poison"), rig.submit("aa")
    await settle()

    rig.predictor.open()

    assert lengths(await good) == [2]
    assert isinstance((await bad).outputs[0], ItemFailure)


@pytest.mark.parametrize(
    ("text", "reason", "message", "field"),
    [
        (
            "unable",
            errors_pb2.ERROR_REASON_CAPABILITY_MISSING,
            "this model has no such part",
            "",
        ),
        ("wrong", errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, "no such place", "mask.hidden"),
    ],
)
async def test_an_items_own_failure_keeps_its_reason_message_and_field(
    rig: Rig, text: str, reason: int, message: str, field: str
) -> None:
    rig.predictor.open()

    (found,) = (await rig.submit(text)).outputs

    assert found == ItemFailure(reason, message, field)


async def test_after_a_failure_the_scheduler_goes_on(rig: Rig) -> None:
    rig.predictor.open()
    await rig.submit("poison")

    assert lengths(await rig.submit("aa")) == [2]


# ---------------------------------------------------------------- leaving


async def test_a_cancelled_job_never_runs(rig: Rig) -> None:
    await rig.busy()
    leaving, staying = rig.submit("leaving", "too"), rig.submit("staying")
    await settle()

    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    rig.predictor.open()

    assert lengths(await staying) == [7]
    assert rig.predictor.batches == [["first"], ["staying"]]
    assert rig.metric("tectum_queue_depth", priority="interactive") == 0


async def test_a_job_cancelled_while_it_runs_is_simply_not_answered(rig: Rig) -> None:
    first = await rig.busy()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    rig.predictor.open()

    assert lengths(await rig.submit("aa")) == [2]


async def test_what_expires_while_it_waits_is_told_so_and_never_runs(rig: Rig) -> None:
    await rig.busy()
    patient, hasty = rig.submit("patient"), rig.submit("hasty", within=0.5)
    await settle()

    rig.clock.now += 0.5
    rig.predictor.open()

    with pytest.raises(Failure) as caught:
        await hasty
    assert caught.value.reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED
    assert lengths(await patient) == [7]
    assert rig.predictor.batches == [["first"], ["patient"]]


async def test_refusals_of_the_policy_become_failures_with_their_delay(rig: Rig) -> None:
    rig.scheduler.costs.observe(("m@v1", "embed_texts"), 1, 100.0)  # 100 ms each
    await rig.busy()

    infeasible = await refusal(rig.submit("a", within=0.05))
    unreachable = await refusal(rig.submit("a", within=0.15))
    passed = await refusal(rig.submit("a", within=0.0))

    assert infeasible.reason == errors_pb2.ERROR_REASON_DEADLINE_INFEASIBLE
    assert infeasible.retry_delay is None
    assert unreachable.reason == errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE
    assert unreachable.retry_delay == pytest.approx(0.05)
    assert passed.reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED


async def test_what_cannot_be_in_time_with_what_follows_it_costs_no_batch(rig: Rig) -> None:
    foreseen = Rollout(2, 1, True, True, False, False)
    key = batch_key("m@v1", foreseen, Item(), cast("Predictor", rig.predictor))
    rig.scheduler.costs.observe(key, 1, 100.0)  # each
    rig.predictor.open()

    refused = await refusal(rig.submit("a", within=0.25, sequel=Sequel(foreseen, 3)))
    taken = await rig.submit("bb", within=0.35, sequel=Sequel(foreseen, 3))

    assert refused.reason == errors_pb2.ERROR_REASON_DEADLINE_INFEASIBLE
    assert "takes about 300 ms alone" in refused.message
    assert rig.predictor.batches == [["bb"]]
    assert lengths(taken) == [2]


async def test_a_refused_deadline_is_told_with_how_far_it_is_and_what_it_would_take(
    rig: Rig,
) -> None:
    rig.scheduler.costs.observe(("m@v1", "embed_texts"), 1, 12.5)
    await rig.busy()

    infeasible = await refusal(rig.submit("a", within=0.0056))
    unreachable = await refusal(rig.submit("a", within=0.0206))

    # Whole milliseconds, and never fewer than it takes.
    assert infeasible.message == "the deadline is 5 ms away; this takes about 13 ms alone"
    told = "the deadline is 20 ms away; with what waits now it takes about 25 ms"
    assert unreachable.message == told


async def test_after_a_stall_the_class_is_served_again(rig: Rig) -> None:
    rig.predictor.open()
    rig.predictor.takes = 0.4
    for _ in range(9):
        await rig.submit("slow")
    rig.predictor.takes = 0.01

    served = []
    for _ in range(200):
        rig.clock.now += 0.05
        asked = rig.submit("a", priority=P.CONTROL, within=0.25)
        served.append(
            not isinstance((await asyncio.gather(asked, return_exceptions=True))[0], Failure)
        )

    assert not served[0]
    assert all(served[-100:])  # five seconds later at the latest, and from then on


async def test_what_the_front_has_lost_of_a_deadline_can_be_tried_again(rig: Rig) -> None:
    rig.scheduler.costs.observe(("m@v1", "embed_texts"), 1, 100.0)

    late = await refusal(rig.submit("a", within=0.09, arrived=rig.clock.now - 0.02))

    assert late.reason == errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE
    assert late.retry_delay is not None


async def test_a_full_queue_refuses() -> None:
    rig = Rig(max_queued=2)
    await rig.busy()
    waiting = rig.submit("a", "b")
    await settle()

    full = await refusal(rig.submit("c"))

    assert full.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    assert full.retry_delay is not None
    rig.predictor.open()
    assert lengths(await waiting) == [1, 1]
    await rig.scheduler.close()


# ---------------------------------------------------------------- accounts and the end


async def test_a_job_of_several_batches_waited_only_while_none_of_its_items_ran() -> None:
    rig = Rig(max_batch=2)
    rig.predictor.takes = 2.0
    rig.clock.now += 1.0
    busy = await rig.busy()
    waiting = rig.submit("a", "bb", "ccc", "dddd", "eeeee")
    await settle()
    rig.clock.now += 3.0

    rig.predictor.open()
    result = await waiting

    assert result.compute_seconds == pytest.approx(6.0)  # in three batches
    assert result.queue_seconds == pytest.approx(5.0)  # 3, and 2 of the batch before
    assert lengths(await busy) == [5]
    await rig.scheduler.close()


async def test_waiting_and_computing_are_accounted_for_each_job(rig: Rig) -> None:
    rig.predictor.takes = 2.0
    await rig.busy()
    rig.clock.now += 1.0
    waiting = rig.submit("a", "b")
    await settle()
    rig.clock.now += 4.0

    rig.predictor.open()
    result = await waiting

    assert result.queue_seconds == pytest.approx(6.0)  # 4, and 2 of the batch before
    assert result.compute_seconds == pytest.approx(2.0)
    assert result.batch_size == 2
    labels = {"model": "m", "op": "embed_texts"}
    assert rig.metric("tectum_batch_size_sum", **labels) == 3
    assert rig.metric("tectum_compute_duration_seconds_sum", **labels) == pytest.approx(7.0 + 2.0)
    assert rig.metric("tectum_queue_duration_seconds_count", **labels, priority="interactive") == 3
    assert rig.scheduler.costs.known == {("m@v1", "embed_texts")}


async def test_depth_is_a_gauge_of_what_waits(rig: Rig) -> None:
    await rig.busy()
    tasks = [rig.submit("a", "b", priority=P.BULK), rig.submit("c", priority=P.CONTROL)]
    await settle()

    depths = {p: rig.metric("tectum_queue_depth", priority=p) for p in ("control", "bulk")}

    assert depths == {"control": 1, "bulk": 2}
    rig.predictor.open()
    await asyncio.gather(*tasks)
    assert rig.metric("tectum_queue_depth", priority="bulk") == 0


async def test_closing_finishes_what_was_admitted() -> None:
    rig = Rig(max_batch=1)
    await rig.busy()
    admitted = [rig.submit("a"), rig.submit("bb"), rig.submit("ccc")]
    await settle()

    closing = asyncio.create_task(rig.scheduler.close())
    await settle()
    assert not closing.done()
    rig.predictor.open()
    await closing

    assert [lengths(task.result()) for task in admitted] == [[1], [2], [3]]


async def test_costs_of_a_version_are_forgotten_with_it(rig: Rig) -> None:
    keys: list[tuple[Any, ...]] = [("m@v1", "embed_texts"), ("m@v2", "embed_texts")]
    for key in keys:
        rig.scheduler.costs.observe(key, 1, 10.0)

    rig.scheduler.forget_model("m@v1")

    assert rig.scheduler.costs.known == {keys[1]}
