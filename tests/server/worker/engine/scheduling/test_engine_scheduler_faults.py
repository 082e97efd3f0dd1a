"""What goes wrong around a batch: what it teaches, who is told, and what the log says."""

import asyncio
import logging
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.server.worker.engine.gated import Rig, lengths, refusal, settle

from tectum.v1 import errors_pb2
from tectum_core.predictor import Predictor
from tectum_core.tokenizer import EncodedText
from tectum_server.worker.engine.computing.running import run_safely
from tectum_server.worker.jobs import EmbedTexts, Item, ItemFailure, ItemOutput, Operation

KEY = ("m@v1", "embed_texts")

# ---------------------------------------------------------------- what failures cost


@pytest.mark.parametrize("place", [0, 13, 31])
async def test_one_bad_item_of_32_costs_about_two_more_batches(rig: Rig, place: int) -> None:
    rig.predictor.open()
    texts = ["a"] * 32
    texts[place] = "poison"

    outputs = (await rig.submit(*texts)).outputs

    assert [i for i, one in enumerate(outputs) if isinstance(one, ItemFailure)] == [place]
    assert len(rig.predictor.batches) == 1 + 2 * 5  # two halves, five times
    assert sum(map(len, rig.predictor.batches)) <= 3 * 32


class Reader:
    """Embeds texts as their lengths, and no batch with a negative one."""

    device = torch.device("cpu")

    def encode(self, text: str) -> EncodedText:
        return EncodedText(ids=[], tokens=[text], content=[])

    def embed_encoded(self, encoded: list[EncodedText]) -> NDArray[np.float32]:
        if any(text.tokens[0].startswith("-") for text in encoded):
            raise ZeroDivisionError
        return np.array([[len(text.tokens[0])] for text in encoded], np.float32)


@given(st.lists(st.integers(-9, 99), min_size=1, max_size=40))
def test_whoever_is_not_bad_is_answered_as_if_nobody_was(numbers: list[int]) -> None:
    work: list[tuple[Operation, Item]] = [(EmbedTexts(), Item(text=str(n))) for n in numbers]

    answers = run_safely(cast("Predictor", Reader()), work)

    for number, output in zip(numbers, answers.outputs, strict=True):
        if number < 0:
            assert isinstance(output, ZeroDivisionError)
        else:
            assert isinstance(output, ItemOutput)
            assert output.arrays[0] == len(str(number))
    assert answers.clean == (min(numbers) >= 0)


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


async def test_neither_does_one_whose_items_had_to_be_run_apart(rig: Rig) -> None:
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


@pytest.mark.usefixtures("lost")
async def test_a_device_that_has_failed_ends_the_engine_for_another_to_begin() -> None:
    told: list[str] = []
    rig = Rig(on_failure=lambda: told.append("failed"))
    rig.predictor.open()
    (poisoned,) = (await rig.submit("poison")).outputs
    before = list(told)

    reasons = [(await refusal(rig.submit(text))).reason for text in ("device", "later")]

    assert isinstance(poisoned, ItemFailure)  # any other fault is its item's
    assert (before, told) == ([], ["failed"])
    assert reasons == [errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE] * 2
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
