"""The shell before a device that computes by itself: what is launched, behind what, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.server.worker.engine.gated import GatedPredictor, Rig, lengths, refusal, settle
from tests.server.worker.renewals import Source

from tectum.v1 import errors_pb2
from tectum_core.tokenizer import EncodedText
from tectum_server.worker.engine.policy.batching import Batch
from tectum_server.worker.engine.scheduling.progress import Place
from tectum_server.worker.jobs import Item, ItemFailure
from tectum_server.worker.jobs import Priority as P

FULL = 4


class GatedFlight:
    """Is fetched when it is let go, or all are."""

    def __init__(self, lane: GatedLane, texts: list[str]) -> None:
        self._lane, self._texts = lane, texts
        self.gate = threading.Event()

    def result(self) -> NDArray[np.float32]:
        self.gate.wait()
        self._lane.clock.now += self._lane.takes
        if "lost" in self._texts:
            raise torch.AcceleratorError("device-side assert triggered")
        if "odd" in self._texts:
            raise ZeroDivisionError("odd")
        return np.array([[len(text)] for text in self._texts], np.float32)


class GatedLane:
    """Takes texts, but for those that are not for it."""

    def __init__(self, predictor: GatedPredictor, rig: Rig) -> None:
        self.clock, self.takes = rig.clock, 0.0
        self.flights: list[GatedFlight] = []
        self.open = False
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Queue[list[str]] = asyncio.Queue()
        self._predictor = predictor

    def texts(self, encoded: Sequence[EncodedText]) -> GatedFlight | None:
        texts = [text.tokens[0] for text in encoded]
        if "poison" in texts:
            raise ZeroDivisionError("poison")
        if "unrecorded" in texts:
            return None
        flight = GatedFlight(self, texts)
        self.flights.append(flight)
        self._loop.call_soon_threadsafe(self._begun.put_nowait, texts)
        if self.open:
            flight.gate.set()
        return flight

    async def launched(self) -> list[str]:
        """Wait until the next batch is launched; gives its texts."""
        return await asyncio.wait_for(self._begun.get(), 10)

    @property
    def idle(self) -> bool:
        """Whether nothing was launched that nobody has heard of yet."""
        return self._begun.empty()

    def open_all(self) -> None:
        self.open = True
        for flight in self.flights:
            flight.gate.set()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig(max_batch=FULL)
    rig.predictor.lane = GatedLane(rig.predictor, rig)
    rig.predictor.open()
    yield rig
    lane_of(rig).open_all()
    await rig.scheduler.close()


def lane_of(rig: Rig) -> GatedLane:
    lane = rig.predictor.lane
    assert isinstance(lane, GatedLane)
    return lane


def named(text: str, count: int = FULL) -> list[str]:
    return [text * (1 + place) for place in range(count)]


async def still(rig: Rig) -> None:
    """Give all a chance, threads too."""
    for _ in range(3):
        await settle()
        await asyncio.get_running_loop().run_in_executor(
            rig.scheduler._threads.compute, lambda: None
        )
    await settle()


# ---------------------------------------------------------------- ahead


async def test_a_full_batch_is_launched_while_another_one_is_computed(rig: Rig) -> None:
    lane = lane_of(rig)
    first, second = rig.submit(*named("a")), rig.submit(*named("b"))

    assert await lane.launched() == named("a")
    assert await lane.launched() == named("b")
    assert not first.done()

    lane.open_all()
    assert lengths(await first) == lengths(await second) == [1, 2, 3, 4]
    assert rig.predictor.batches == []  # nothing was computed on the host


async def test_no_third_batch_is_launched_before_the_first_is_answered(rig: Rig) -> None:
    lane = lane_of(rig)
    jobs = [rig.submit(*named(text)) for text in "abc"]
    await lane.launched()
    await lane.launched()
    await still(rig)
    assert lane.idle

    lane.flights[0].gate.set()

    assert lengths(await jobs[0]) == [1, 2, 3, 4]
    assert await lane.launched() == named("c")
    assert not jobs[1].done()


async def test_what_would_be_no_full_batch_waits_for_others_to_join_it(rig: Rig) -> None:
    lane = lane_of(rig)
    first, second = rig.submit(*named("a")), rig.submit("b")
    await lane.launched()
    await still(rig)
    assert lane.idle

    third = rig.submit(*named("c", 3))

    assert await lane.launched() == ["b", "c", "cc", "ccc"]
    lane.open_all()
    assert [lengths(await job) for job in (first, second, third)] == [
        [1, 2, 3, 4],
        [1],
        [1, 2, 3],
    ]


async def test_while_control_comes_nothing_is_launched_ahead_of_it(rig: Rig) -> None:
    lane = lane_of(rig)
    lane.open = True
    await rig.submit("control", priority=P.CONTROL)
    await lane.launched()
    lane.open = False
    first, bulk = rig.submit(*named("a")), rig.submit(*named("b"))
    await lane.launched()
    await still(rig)
    assert lane.idle

    control = rig.submit("urgent", priority=P.CONTROL)
    lane.flights[1].gate.set()

    assert await lane.launched() == ["urgent", "b", "bb", "bbb"]
    lane.open_all()
    assert lengths(await control) == [6]
    await asyncio.gather(first, bulk)


async def test_what_was_not_recorded_is_computed_when_nothing_else_is(rig: Rig) -> None:
    lane = lane_of(rig)
    first, second = rig.submit(*named("a")), rig.submit("unrecorded", *named("b", 3))
    await lane.launched()
    await still(rig)
    assert rig.predictor.batches == []

    lane.open_all()

    assert lengths(await second) == [10, 1, 2, 3]
    assert lengths(await first) == [1, 2, 3, 4]
    assert rig.predictor.batches == [["unrecorded", "b", "bb", "bbb"]]


# ---------------------------------------------------------------- accounts


async def test_waiting_behind_another_batch_on_the_device_is_no_time_of_its_own(rig: Rig) -> None:
    lane = lane_of(rig)
    lane.takes = 2.0
    jobs = [rig.submit(*named("a")), rig.submit(*named("b"))]
    await lane.launched()
    await lane.launched()

    lane.flights[0].gate.set()
    first = await jobs[0]
    lane.flights[1].gate.set()
    second = await jobs[1]

    assert (first.compute_seconds, first.queue_seconds) == pytest.approx((2.0, 0.0))
    assert (second.compute_seconds, second.queue_seconds) == pytest.approx((2.0, 2.0))
    cost = rig.scheduler.costs.cost(("m@v1", "embed_texts"))
    assert cost is not None
    assert cost.of(FULL) == pytest.approx(2000.0)


# ---------------------------------------------------------------- what goes wrong


async def test_one_bad_item_fails_alone_although_its_batch_cannot_be_launched(rig: Rig) -> None:
    lane_of(rig).open_all()

    result = await rig.submit("a", "poison", "ccc")

    assert isinstance(result.outputs[1], ItemFailure)
    assert lengths(result) == [1, 3]


async def test_a_batch_that_cannot_be_fetched_fails_and_the_next_one_does_not(rig: Rig) -> None:
    lane_of(rig).open_all()

    odd = await rig.submit("odd", "a")

    assert all(isinstance(output, ItemFailure) for output in odd.outputs)
    assert rig.scheduler.costs.known == set()  # it says nothing of what others take
    assert lengths(await rig.submit("bb")) == [2]


@pytest.mark.usefixtures("lost")
async def test_a_device_that_fails_ends_the_service_for_all_who_wait() -> None:
    failed = asyncio.Event()
    rig = Rig(max_batch=FULL, on_failure=failed.set)
    rig.predictor.lane = GatedLane(rig.predictor, rig)
    lane = lane_of(rig)
    jobs = [rig.submit("lost", *named("a", 3)), rig.submit(*named("b"))]
    await lane.launched()
    await lane.launched()

    lane.flights[0].gate.set()

    reasons = [(await refusal(job)).reason for job in jobs]
    assert reasons == [errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE] * 2
    await asyncio.wait_for(failed.wait(), 10)
    lane.open_all()
    await rig.scheduler.close()


async def test_an_error_of_a_device_that_goes_on_is_its_batchs_alone(rig: Rig) -> None:
    lane_of(rig).open_all()

    (failed, *_) = (await rig.submit("lost", *named("a", 3))).outputs

    assert isinstance(failed, ItemFailure)
    assert lengths(await rig.submit("bb")) == [2]


async def test_a_device_that_does_not_come_back_ends_the_service() -> None:
    failed = asyncio.Event()
    rig = Rig(max_batch=FULL, on_failure=failed.set, compute_timeout=0.05)
    rig.predictor.lane = GatedLane(rig.predictor, rig)

    stuck = rig.submit("a")

    assert (await refusal(stuck)).reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    await asyncio.wait_for(failed.wait(), 10)
    lane_of(rig).open_all()
    await rig.scheduler.close()


async def test_streams_run_when_all_has_ended_with_the_newest_there_is_by_then(rig: Rig) -> None:
    lane, source = lane_of(rig), Source()
    calls = [rig.submit(*named(text)) for text in "ab"]
    place = rig.submit(*named("s"), renewal=source, turn=0.0)
    await lane.launched()
    await lane.launched()
    await asyncio.wait_for(source.asked.wait(), 10)

    lane.flights[0].gate.set()
    await calls[0]
    await still(rig)
    behind_one = lane.idle
    newest = source.has_settled(*(Item(text=text) for text in named("newest")))
    assert await asyncio.wait_for(newest, 10)
    lane.open_all()

    assert await lane.launched() == named("newest")
    assert behind_one
    await asyncio.gather(calls[1], place)


async def test_calls_go_behind_streams_that_were_launched(rig: Rig) -> None:
    lane, source = lane_of(rig), Source()
    place = rig.submit(*named("s"), renewal=source, turn=0.0)
    await lane.launched()

    call = rig.submit(*named("a"))

    assert await lane.launched() == named("a")
    lane.open_all()
    await asyncio.gather(place, call)


async def test_what_is_reckoned_for_a_batch_behind_another_is_what_it_takes(rig: Rig) -> None:
    rig.scheduler.costs.observe(("m@v1", "embed_texts"), FULL, 60_000.0)
    lane, begun = lane_of(rig), rig.clock.now
    jobs = [rig.submit(*named(text)) for text in "ab"]
    await lane.launched()
    await lane.launched()

    # However long they are, no call waits for anybody to give what is newer.
    assert rig.scheduler._policy._under_way.until_ms == begun * 1000 + 120_000

    lane.open_all()
    await asyncio.gather(*jobs)


async def test_a_job_cancelled_on_its_way_is_not_answered_and_holds_nothing_up(rig: Rig) -> None:
    lane = lane_of(rig)
    leaving = rig.submit(*named("a"))
    await lane.launched()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    lane.open_all()

    assert lengths(await rig.submit("bb")) == [2]


async def test_a_batch_whose_callers_have_all_gone_leaves_the_one_before_it_under_way(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = lane_of(rig)
    first = rig.submit(*named("a"))
    await lane.launched()
    under_way = rig.scheduler._policy._under_way
    before = [one.item for one in under_way.members]

    async def gone(batch: Batch) -> list[Place]:
        return []

    monkeypatch.setattr(rig.scheduler, "_begun", gone)
    leaving = rig.submit(*named("b"))
    await still(rig)

    assert [one.item for one in under_way.members] == before
    leaving.cancel()
    lane.open_all()
    assert lengths(await first) == [1, 2, 3, 4]
    assert under_way.members == []


async def test_closing_fetches_what_was_launched() -> None:
    rig = Rig(max_batch=FULL)
    rig.predictor.lane = GatedLane(rig.predictor, rig)
    lane = lane_of(rig)
    jobs = [rig.submit(*named(text)) for text in "abc"]
    await lane.launched()
    await lane.launched()

    closing = asyncio.create_task(rig.scheduler.close())
    await still(rig)
    assert not closing.done()
    lane.open_all()
    await closing

    assert [lengths(job.result()) for job in jobs] == [[1, 2, 3, 4]] * 3
