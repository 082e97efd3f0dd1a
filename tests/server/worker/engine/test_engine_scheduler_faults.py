"""What goes wrong around a batch: what it teaches, who is told, and what the log says."""

import asyncio
import logging
from typing import Any

import pytest
from tests.server.worker.engine.gated import Rig, lengths, refusal, settle

from tectum.v1 import errors_pb2

KEY = ("m@v1", "embed_texts")

# ---------------------------------------------------------------- what failures teach


async def test_a_batch_that_fails_says_nothing_of_what_others_cost(rig: Rig) -> None:
    rig.predictor.open()
    rig.predictor.takes = 2.0
    await rig.submit("a")
    before = rig.scheduler.costs.cost(KEY)
    rig.predictor.takes = 0.0

    for text in ("poison", "wrong", "unable"):
        for _ in range(20):
            await rig.submit(text)

    assert before is not None
    assert before.of(1) == pytest.approx(2000)
    assert rig.scheduler.costs.cost(KEY) == before


async def test_neither_does_one_whose_items_had_to_be_run_alone(rig: Rig) -> None:
    rig.predictor.open()

    await rig.submit("a", "poison", "b")

    assert rig.scheduler.costs.known == set()


async def test_a_key_that_only_ever_fails_is_not_remembered(rig: Rig) -> None:
    rig.predictor.open()

    for _ in range(5):
        await rig.submit("wrong")

    assert rig.scheduler.costs.known == set()


# ---------------------------------------------------------------- a fault of the scheduler's own


def broken(*_: object) -> None:
    raise RuntimeError("dictionary changed size during iteration")


async def test_a_fault_in_the_loop_leaves_nobody_waiting_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    rig = Rig(on_failure=lambda: told.append("failed"))
    monkeypatch.setattr(rig.scheduler.costs, "observe", broken)
    running = await rig.busy()
    waiting = rig.submit("waits")
    await settle()

    rig.predictor.open()
    reasons = [(await refusal(task)).reason for task in (running, waiting)]
    later = await refusal(rig.submit("later"))

    unavailable = errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert [*reasons, later.reason] == [unavailable] * 3
    assert later.retry_delay is not None
    assert told == ["failed"]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "computes no more" in record.message
    assert record.exc_info
    async with asyncio.timeout(10):
        await rig.scheduler.close()


# ---------------------------------------------------------------- what the log says


def logged(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    """The fields of every such record."""
    return [vars(record) for record in caplog.records if record.message == message]


async def test_a_failed_item_is_logged_under_its_requests_name(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.predictor.open()

    await rig.submit("a", "poison", name="r-1")
    await rig.submit("wrong", name="r-2")

    (fault,) = logged(caplog, "an item failed in the engine")
    assert (fault["request_id"], fault["item"], fault["op"]) == ("r-1", 1, "embed_texts")
    assert "poison" in str(fault["exc_info"][1])
    (mistake,) = logged(caplog, "an item has no answer")
    assert (mistake["request_id"], mistake["error"]) == ("r-2", "no such place")


async def test_refused_and_expired_requests_are_logged_under_their_names(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = await rig.busy()
    await refusal(rig.submit("late", within=0.0, name="r-1"))
    hasty = rig.submit("a", "b", within=0.5, name="r-2")
    await settle()

    rig.clock.now += 0.5
    rig.predictor.open()
    await refusal(hasty)

    (refused,) = logged(caplog, "refused")
    assert (refused["request_id"], refused["reason"]) == ("r-1", "deadline passed")
    (expired,) = logged(caplog, "expired while waiting")  # once, however many its items
    assert expired["request_id"] == "r-2"
    assert lengths(await first) == [5]
