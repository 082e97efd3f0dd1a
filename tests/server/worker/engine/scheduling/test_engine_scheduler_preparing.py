"""Pictures are brought to the model's size beside the batch that runs, in the order of service."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.server.worker.engine.gated import FOREVER, Clock, GatedPredictor, Rig, refusal, settle
from tests.server.worker.renewals import Source

from tectum.v1 import errors_pb2
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.tokenizer import EncodedText
from tectum_server.worker.engine.replay.recording import Recorder, read_recording
from tectum_server.worker.jobs import EmbedImages, Item, ItemFailure, ItemOutput, Job, JobResult
from tectum_server.worker.jobs import Priority as P

KIND, KEY = ("m@v1", "prepare"), ("m@v1", "embed_images", "pooled")
SIDE = 2
POISON, DEVICE = 200, 201


class SeeingPredictor(GatedPredictor):
    """Embeds pictures as their first byte; brings them to its size when it may."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.config = types.SimpleNamespace(images=ImagePreprocessing(size=SIDE))
        self.fits: list[int] = []
        self.threads: set[str] = set()
        self.may_fit = threading.Event()
        self.may_fit.set()
        self._began: asyncio.Queue[int] = asyncio.Queue()

    def fitted(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        value = int(pictures[0, 0, 0])
        self.fits.append(value)
        self.threads.add(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self._began.put_nowait, value)
        self.may_fit.wait()
        if value == POISON:
            raise ZeroDivisionError("poison")
        if value == DEVICE:
            raise torch.AcceleratorError("device-side assert triggered")
        return pictures[:SIDE, :SIDE]

    def embed_images(self, images: Sequence[NDArray[np.uint8]], _: str) -> NDArray[np.float32]:
        assert all(image.shape == (SIDE, SIDE, 3) for image in images)
        words = ["x" * int(image[0, 0, 0]) for image in images]
        return self.embed_encoded([EncodedText(ids=[], tokens=[one], content=[]) for one in words])

    async def fitting(self) -> int:
        """Wait until the next picture is begun; gives its value."""
        return await self._began.get()

    @property
    def values(self) -> list[list[int]]:
        """Of each batch its pictures' values."""
        return [[len(word) for word in batch] for batch in self.batches]


class Seeing(Rig):
    """A scheduler before a predictor that sees."""

    def __init__(self, max_batch: int = 32, recorder: Recorder | None = None) -> None:
        super().__init__(max_batch=max_batch, recorder=recorder)
        self.sees = SeeingPredictor(self.clock)
        self.predictor = self.sees

    def show(
        self,
        *values: int,
        side: int = 2 * SIDE,
        priority: P = P.INTERACTIVE,
        within: float = FOREVER,
        renewal: Source | None = None,
        turn: float | None = None,
    ) -> asyncio.Task[JobResult]:
        items = tuple(shown(value, side) for value in values)
        due = self.clock.now + within
        job = Job("m", EmbedImages("pooled"), items, priority, due, turn=turn)
        serving = cast("Predictor", self.sees)
        return asyncio.create_task(self.scheduler.submit(job, serving, renewal))

    async def end(self) -> None:
        self.sees.may_fit.set()
        self.sees.open()
        await self.scheduler.close()


def shown(value: int, side: int = 2 * SIDE) -> Item:
    """A picture of one value."""
    return Item((np.full((side, side, 3), value, np.uint8),))


def seen(result: JobResult) -> list[int | None]:
    """The values that were answered; None where there is no answer."""
    return [int(o.arrays[0][0]) if isinstance(o, ItemOutput) else None for o in result.outputs]


@pytest.fixture
async def rig() -> AsyncIterator[Seeing]:
    rig = Seeing()
    yield rig
    await rig.end()


async def test_the_next_pictures_are_prepared_while_a_batch_runs(rig: Seeing) -> None:
    busy = rig.show(1, side=SIDE)
    await rig.sees.begun()

    task = rig.show(2, 3)
    prepared = [await rig.sees.fitting() for _ in range(2)]

    assert not busy.done()
    assert prepared == [2, 3]
    rig.sees.open()
    assert seen(await task) == [2, 3]
    assert rig.sees.threads == {"prepare_0"}


async def test_what_has_the_models_size_is_not_prepared(rig: Seeing) -> None:
    rig.sees.open()

    assert seen(await rig.show(1, 2, side=SIDE)) == [1, 2]
    assert rig.sees.fits == []


async def test_what_is_prepared_and_for_whom_is_recorded(tmp_path: Path) -> None:
    rig = Seeing(recorder=Recorder(tmp_path / "arrivals.jsonl"))
    rig.sees.open()
    await rig.show(1)
    await rig.end()

    found = read_recording(tmp_path / "arrivals.jsonl")
    assert [one.preparation for one in found.arrivals] == [("/".join(KIND), 1)]
    assert [batch[:2] for batch in found.batches] == [("/".join(KIND), 1), ("/".join(KEY), 1)]


async def test_control_is_prepared_before_bulk_that_came_first(rig: Seeing) -> None:
    rig.sees.may_fit.clear()
    bulk = rig.show(1, 2, 3, priority=P.BULK)
    await rig.sees.fitting()
    control = rig.show(4, priority=P.CONTROL)
    await settle()

    rig.sees.may_fit.set()
    rig.sees.open()

    assert seen(await control) == [4]
    assert seen(await bulk) == [1, 2, 3]
    assert rig.sees.fits == [1, 4, 2, 3]


async def test_the_engine_waits_for_no_preparation_while_anything_is_ready(rig: Seeing) -> None:
    rig.sees.may_fit.clear()
    rig.sees.open()
    control = rig.show(1, priority=P.CONTROL)
    await rig.sees.fitting()

    assert seen(await rig.show(2, side=SIDE, priority=P.BULK)) == [2]
    assert not control.done()
    rig.sees.may_fit.set()
    assert seen(await control) == [1]


async def test_a_picture_that_cannot_be_prepared_fails_alone(rig: Seeing) -> None:
    rig.sees.open()

    result = await rig.show(1, POISON, 2)
    alone = await rig.show(POISON)

    assert seen(result) == [1, None, 2]
    assert [type(output) for output in (*alone.outputs, result.outputs[1])] == [ItemFailure] * 2
    assert all(POISON not in batch for batch in rig.sees.values)
    assert seen(await rig.show(3)) == [3]


async def test_who_has_gone_is_not_prepared(rig: Seeing) -> None:
    rig.sees.may_fit.clear()
    first = rig.show(1)
    await rig.sees.fitting()
    gone, late, last = rig.show(2), rig.show(3, within=1.0), rig.show(4)
    await settle()
    gone.cancel()
    rig.clock.now += 2.0

    rig.sees.may_fit.set()
    rig.sees.open()

    assert seen(await first) == [1]
    assert seen(await last) == [4]
    assert (await refusal(late)).reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED
    assert rig.sees.fits == [1, 4]


async def test_who_goes_while_it_is_prepared_is_not_computed(rig: Seeing) -> None:
    rig.sees.may_fit.clear()
    gone = rig.show(1)
    await rig.sees.fitting()
    gone.cancel()
    await settle()

    rig.sees.may_fit.set()
    rig.sees.open()

    assert seen(await rig.show(2)) == [2]
    assert rig.sees.values == [[2]]


async def test_two_batches_are_prepared_ahead_and_no_more() -> None:
    rig = Seeing(max_batch=2)
    rig.show(1, side=SIDE)
    await rig.sees.begun()
    tasks = [rig.show(value) for value in range(2, 10)]
    for _ in range(4):
        await rig.sees.fitting()
    await settle()

    urgent = rig.show(20, priority=P.CONTROL)
    assert await rig.sees.fitting() == 20
    await settle()
    ahead = list(rig.sees.fits)
    rig.sees.open()

    assert ahead == [2, 3, 4, 5, 20]  # in place of 5, which is prepared again
    assert seen(await urgent) == [20]
    assert [seen(await task) for task in tasks] == [[value] for value in range(2, 10)]
    assert sorted(rig.sees.fits) == sorted([*range(2, 10), 20, 5])
    await rig.end()


async def asked_for_newer(rig: Seeing) -> tuple[Source, asyncio.Task[JobResult]]:
    """Picture 2 waits behind a batch that runs, and there may be a newer one in its place."""
    source = Source()
    rig.show(1, side=SIDE)
    await rig.sees.begun()
    task = rig.show(2, renewal=source)
    assert await rig.sees.fitting() == 2
    await source.asked.wait()
    return source, task


async def test_newer_content_is_prepared_in_place_of_the_older(rig: Seeing) -> None:
    source, task = await asked_for_newer(rig)

    assert await source.has_settled(shown(3))
    assert await rig.sees.fitting() == 3
    rig.sees.open()

    assert seen(await task) == [3]
    assert rig.sees.values == [[1], [3]]


async def test_content_that_comes_too_late_for_that_is_prepared_with_its_batch(rig: Seeing) -> None:
    source, task = await asked_for_newer(rig)
    while not any(place.prepared for place in rig.scheduler._queue.places.values()):
        await asyncio.sleep(0.001)
    rig.sees.may_fit.clear()
    assert await source.has_settled(shown(3))
    assert await rig.sees.fitting() == 3  # and it is not done with it when its turn comes

    rig.sees.open()
    assert await rig.sees.fitting() == 3
    rig.sees.may_fit.set()

    assert seen(await task) == [3]
    assert rig.sees.threads == {"prepare_0", "compute_0"}


async def test_a_streams_newest_frame_is_prepared_and_of_use_for_as_long_as_it_is(
    rig: Seeing,
) -> None:
    source = Source()
    rig.show(1, side=SIDE)
    await rig.sees.begun()
    task = rig.show(2, within=1.0, renewal=source, turn=0.0)
    assert await rig.sees.fitting() == 2
    await source.asked.wait()

    assert await source.has_settled(shown(3), until=rig.clock.now + 3.0)
    assert await rig.sees.fitting() == 3
    rig.clock.now += 2.0
    rig.sees.open()

    assert seen(await task) == [3]


async def test_a_streams_frame_that_is_stale_is_not_prepared_and_its_place_left_out(
    rig: Seeing,
) -> None:
    rig.show(1, side=SIDE)
    await rig.sees.begun()
    rig.sees.may_fit.clear()
    rig.show(2)
    await rig.sees.fitting()
    stale, fresh = rig.show(3, within=1.0, turn=0.0), rig.show(4, turn=1.0)
    await settle()
    rig.clock.now += 1.5

    rig.sees.may_fit.set()
    assert await rig.sees.fitting() == 4
    rig.sees.open()

    assert (await refusal(stale)).reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED
    assert seen(await fresh) == [4]
    assert rig.sees.fits == [2, 4]


async def test_a_place_whose_turn_came_with_a_stale_frame_runs_with_a_newer_one(
    rig: Seeing,
) -> None:
    source = Source()
    rig.show(1, side=SIDE)
    await rig.sees.begun()
    rig.sees.may_fit.clear()
    rig.show(2)
    await rig.sees.fitting()
    task = rig.show(3, within=1.0, renewal=source, turn=0.0)
    await source.asked.wait()
    rig.clock.now += 1.5
    rig.sees.may_fit.set()
    while rig.scheduler._policy.unready:
        await asyncio.sleep(0.001)

    assert await source.has_settled(shown(4), until=rig.clock.now + 3.0)
    rig.sees.open()

    assert seen(await task) == [4]
    assert 3 not in rig.sees.fits


async def test_what_preparing_takes_is_learnt_and_no_batch_is_kept_by_size(rig: Seeing) -> None:
    rig.sees.open()

    await rig.show(1, side=8)
    await rig.show(2, side=500)

    assert rig.scheduler.costs.known == {KIND, KEY}


async def test_a_deadline_is_judged_with_what_preparing_takes(rig: Seeing) -> None:
    rig.sees.open()
    rig.scheduler.costs.observe(KIND, 1, 100.0)
    rig.scheduler.costs.observe(KEY, 1, 100.0)

    refused = await refusal(rig.show(1, within=0.15))

    assert refused.reason == errors_pb2.ERROR_REASON_DEADLINE_INFEASIBLE
    assert seen(await rig.show(1, within=0.15, side=SIDE)) == [1]
    assert seen(await rig.show(1, within=0.25)) == [1]


@pytest.mark.usefixtures("lost")
async def test_a_device_that_fails_while_it_prepares_ends_the_service(rig: Seeing) -> None:
    failure = await refusal(rig.show(DEVICE))

    assert failure.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert (await refusal(rig.show(1))).reason == failure.reason


async def test_a_frame_that_is_still_to_be_prepared_is_not_asked_for_a_newer_one(
    rig: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tectum_server.worker.engine.scheduling.renewing.NEW_MS", 0.0)
    rig.sees.takes = 3600.0
    rig.sees.let_go()
    await rig.show(1, side=SIDE)  # teaches what a batch costs
    await rig.sees.begun()
    source = Source()
    busy = rig.show(2, side=SIDE)
    await rig.sees.begun()
    rig.sees.may_fit.clear()
    task = rig.show(3, renewal=source, turn=0.0)
    await rig.sees.fitting()
    source.has(shown(4))
    rig.scheduler._queue.places[max(rig.scheduler._queue.places)].progress.renewed.ask_once()
    await settle()
    asked = list(source.settlements)  # once, which is always worth its preparation
    source.has(shown(5))

    rig.sees.let_go()
    await settle()
    rig.sees.may_fit.set()
    rig.sees.open()

    assert seen(await task) == [4]
    assert (asked, source.settlements) == ([True], [True])
    await busy
