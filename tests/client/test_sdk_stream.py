"""Live streams through both clients: what goes out, what comes back, and the newest wins."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client import fake_answers
from tests.client.fake_worker import FakeWorker
from tests.client.streams import (
    LARGE,
    SMALL,
    accepted,
    collect,
    frames,
    paced,
    paced_async,
)

import tectum
from tectum.conversation import Conversation, Slot
from tectum.v1 import stream_pb2

# Both ways of giving frames


async def test_an_iterable_of_frames_becomes_an_iterator_of_results(
    client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    options: tectum.StreamOptions = {"embed": True, "latent_actions": True, "own_clock": False}

    for stream in (
        client.stream(paced(3), **options),
        aclient.stream(paced_async(3), **options),
    ):
        results = await collect(stream)

        assert [result.frame_id for result in results] == [0, 1, 2]
        assert {result.status for result in results} == {tectum.FrameStatus.OK}
        first, second, _ = results
        assert first.embedding is not None
        assert first.embedding.space_id == fake_answers.JOINT
        assert first.age >= 0.003  # as it was told, and how long it waited here
        assert first.latent_action_status is tectum.LatentActionStatus.INTERVAL_UNAVAILABLE
        assert (first.latent_action, first.earlier_frame_id) == (None, None)
        assert second.latent_action is not None
        assert second.latent_action.interval == pytest.approx(0.05, abs=1e-6)
        assert second.earlier_frame_id == 0
        assert stream.ready is not None
        assert stream.ready.info.model == "tiny"
        assert stream.ready.worker_time == pytest.approx(time.time(), abs=5)


async def test_frames_can_be_pushed(client: tectum.Client, aclient: tectum.AsyncClient) -> None:
    def pushing() -> list[int]:
        with client.stream(embed=True) as stream:
            ids = []
            for frame in frames(3):
                stream.send(frame)
                ids.append(next(stream).frame_id)
            stream.finish()
            return ids + [result.frame_id for result in stream]

    assert await asyncio.to_thread(pushing) == [0, 1, 2]

    async with aclient.stream(embed=True) as stream:
        ids = []
        for frame in frames(3):
            stream.send(frame)
            ids.append((await anext(stream)).frame_id)
        stream.finish()
        assert ids + [result.frame_id async for result in stream] == [0, 1, 2]


async def test_what_is_asked_of_a_stream_reaches_the_worker(
    worker: FakeWorker, aclient: tectum.AsyncClient
) -> None:
    async with aclient.stream(
        embed=True,
        latent_actions=True,
        decode_actions=True,
        kind="pooled",
        dtype="int8",
        dimensions=4,
        lifespan=0.5,
        depth=3,
        model="tiny@1",
        expected_spaces=["joint-1"],
        request_id="mine",
        token="secret",
    ) as stream:
        stream.send(tectum.Frame(SMALL, frame_id=7, captured_at=12.5, lifespan=0.25))
        result = await anext(stream)

    assert result.frame_id == 7
    setup, metadata = worker.seen[0].request, worker.seen[0].metadata
    assert setup.options.priority == 1, "a stream is CONTROL unless it says otherwise"
    assert (setup.options.model, list(setup.options.expected_space_ids)) == ("tiny@1", ["joint-1"])
    assert (setup.vector.kind, setup.vector.data_type, setup.vector.dimensions) == (2, 3, 4)
    assert (setup.embed, setup.latent_actions, setup.decode_actions) == (True, True, True)
    assert setup.lifespan.ToMilliseconds() == 500
    assert setup.depth == 3
    assert metadata["x-request-id"] == "mine"
    assert metadata["authorization"] == "Bearer secret"
    assert worker.seen[0].deadline is None


# Newest wins


async def test_frames_that_the_link_cannot_take_give_way_to_newer_ones(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    for open_stream in (client.stream, aclient.stream):
        worker.orders.hold_frames.clear()
        stream = open_stream(embed=True)
        await accepted(stream)
        began = time.monotonic()
        for frame in frames(20, LARGE):
            stream.send(frame)
            await asyncio.sleep(0.005)
        took = time.monotonic() - began
        worker.orders.hold_frames.set()
        stream.finish()
        results = await collect(stream)

        assert took < 2, "sending never waits"
        assert results[-1].frame_id == 19, "the newest frame is answered"
        assert stream.dropped >= 10
        assert len(results) + stream.unread + stream.dropped == 20


@given(st.integers(1, 16), st.lists(st.booleans(), max_size=60))
def test_of_what_waits_the_newest_are_kept_and_leave_in_order(depth: int, puts: list[bool]) -> None:
    slot, model, left, kept = Slot(depth), list[int](), list[int](), list[int]()
    for number, put in enumerate(puts):
        if put:
            frame = stream_pb2.StreamFrame(frame_id=number)
            slot.put(stream_pb2.StreamPerceptionRequest(frame=frame))
            model = [*model, number][-depth:]
        elif (message := slot.take()) is not None:
            left.append(message.frame.frame_id)
            kept.append(model.pop(0))

    assert left == kept
    assert slot.waits == bool(model)
    assert sum(puts) == len(left) + slot.dropped + len(model)


async def test_a_burst_of_as_many_frames_as_may_wait_loses_none(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    for open_stream in (client.stream, aclient.stream):
        stream = open_stream(embed=True, depth=4)
        for frame in frames(6):  # before the worker has accepted it
            stream.send(frame)
        stream.finish()

        results = await collect(stream)

        assert [result.frame_id for result in results] == [2, 3, 4, 5]
        assert stream.dropped == 2


def test_a_frame_that_was_not_accepted_takes_no_number() -> None:
    conversation = Conversation("a-1", 2**20)
    with pytest.raises(tectum.InvalidInput):
        conversation.say(tectum.Frame(b""))

    assert conversation.say(tectum.Frame(SMALL)) == 0


async def test_a_picture_that_is_no_frame_is_refused_by_name(
    client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    async def pictures() -> AsyncIterator[Any]:
        yield SMALL

    for stream in (client.stream([SMALL], embed=True), aclient.stream(pictures(), embed=True)):  # type: ignore[list-item]
        with pytest.raises(tectum.InvalidInput) as caught:
            await collect(stream)
        told = f"frame: found uint8[{SMALL.shape[0]}"
        assert str(caught.value).startswith(told)
        assert "allowed: tectum.Frame, such as Frame(picture, captured_at=" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "first", "second"),
    [
        ("frame_id", {"frame_id": 7}, {"frame_id": 7}),
        ("captured_at", {"captured_at": 2.0}, {"captured_at": 2.0}),
        ("captured_at", {}, {"captured_at": float("nan")}),
        ("lifespan", {}, {"lifespan": 61.0}),
        ("lifespan", {}, {"lifespan": 0.0}),
        ("image", {}, {"image": SMALL.astype(float)}),
    ],
)
def test_a_frame_out_of_order_or_out_of_range_is_refused(
    field: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    conversation = Conversation("a-1", 2**20)
    conversation.say(tectum.Frame(**{"image": SMALL, **first}))

    with pytest.raises(tectum.InvalidInput) as caught:
        conversation.say(tectum.Frame(**{"image": SMALL, **second}))
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("embed", {}),
        ("embed", {"embed": "pooled"}),
        ("latent_actions", {"embed": True, "latent_actions": None}),
        ("decode_actions", {"embed": True, "decode_actions": True}),
        ("lifespan", {"embed": True, "lifespan": 61}),
        ("depth", {"embed": True, "depth": 0}),
        ("depth", {"embed": True, "depth": 17}),
        ("depth", {"embed": True, "depth": True}),
        ("depth", {"embed": True, "depth": 1.5}),
        ("dtype", {"embed": True, "dtype": "int64"}),
        ("timeout", {"embed": True, "timeout": -1}),
    ],
)
def test_a_stream_that_can_never_succeed_is_refused(
    field: str, options: Any, client: tectum.Client
) -> None:
    with pytest.raises(tectum.InvalidInput) as caught:
        client.stream(**options)
    assert caught.value.violations[0].field == field
