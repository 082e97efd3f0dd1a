"""How streams fail and end, through both clients: loudly, on both sides, and leaving nothing."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.client.fake_errors import R
from tests.client.fake_worker import FakeWorker, wait_for
from tests.client.streams import (
    accepted,
    collect,
    endless,
    frames,
    paced,
    paced_async,
)

import tectum
from tectum.conversation import Conversation
from tectum.v1 import stream_pb2

# Errors


async def test_a_bad_frame_fails_alone(client: tectum.Client, aclient: tectum.AsyncClient) -> None:
    def pushing() -> tectum.FrameResult:
        with client.stream(embed=True) as stream:
            stream.send(tectum.Frame(b"no picture"))
            return next(stream)

    failed = [await asyncio.to_thread(pushing)]
    async with aclient.stream(embed=True) as stream:
        stream.send(tectum.Frame(b"no picture"))
        failed.append(await anext(stream))

    for result in failed:
        assert result.status is tectum.FrameStatus.FAILED
        assert result.error is not None
        assert result.error.reason == "IMAGE_UNREADABLE"
        assert (result.info, result.embedding) == (None, None)


async def test_a_refused_stream_raises_on_entering_and_on_reading(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.refuse(R.ERROR_REASON_CAPABILITY_MISSING, times=4)

    with pytest.raises(tectum.CapabilityMissing), client.stream(embed=True):
        pass
    with pytest.raises(tectum.CapabilityMissing):
        await collect(client.stream(paced(3), embed=True))
    with pytest.raises(tectum.CapabilityMissing):
        async with aclient.stream(embed=True):
            pass
    with pytest.raises(tectum.CapabilityMissing):
        await collect(aclient.stream(paced_async(3), embed=True))


async def test_a_refusal_is_not_lost_among_frames_on_their_way_out(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    for _ in range(20):
        worker.refuse(R.ERROR_REASON_CAPABILITY_MISSING, times=2)
        with pytest.raises(tectum.CapabilityMissing):
            await collect(client.stream(endless(), embed=True))
        with pytest.raises(tectum.CapabilityMissing):
            await collect(aclient.stream(endless(), embed=True))


async def test_a_stream_that_ends_among_frames_on_their_way_out_is_unavailable(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    for _ in range(20):
        for open_stream in (client.stream, aclient.stream):
            stream = open_stream(endless(), embed=True)
            await accepted(stream)
            worker.refuse(R.ERROR_REASON_DRAINING)
            with pytest.raises(tectum.Unavailable):
                await collect(stream)


async def test_a_worker_that_does_not_accept_a_stream_in_time_is_given_up(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    worker.orders.delay = 3

    with (
        pytest.raises(tectum.DeadlineExceeded, match=r"within 0\.1 s"),
        client.stream(embed=True, timeout=0.1),
    ):
        pass
    with pytest.raises(tectum.DeadlineExceeded, match=r"within 0\.1 s"):
        async with aclient.stream(embed=True, timeout=0.1):
            pass

    for seen in worker.seen:
        assert await asyncio.to_thread(seen.ended.wait, 2)


@pytest.mark.parametrize("error", [OSError, ValueError, TimeoutError])
async def test_an_error_in_the_frames_is_raised_where_results_are_read(
    error: type[Exception], client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    def broken() -> Iterator[tectum.Frame]:
        yield from frames(1)
        raise error("the camera fell off")

    for stream in (client.stream(broken(), embed=True), aclient.stream(broken(), embed=True)):
        with pytest.raises(error, match="the camera fell off"):
            await collect(stream)


async def test_a_worker_that_dies_is_unavailable_and_ends_sending(
    aclient: tectum.AsyncClient, client: tectum.Client, worker: FakeWorker
) -> None:
    stream, parallel = client.stream(embed=True), aclient.stream(embed=True)
    stream.send(frames(1)[0])
    parallel.send(frames(1)[0])
    await asyncio.to_thread(next, stream)
    await anext(parallel)
    worker.__exit__()

    with pytest.raises(tectum.TectumError) as sync:
        await collect(stream)
    with pytest.raises(tectum.TectumError) as later:
        await collect(parallel)
    assert {type(sync.value), type(later.value)} <= {tectum.Unavailable, tectum.Cancelled}
    for ended in (stream, parallel):
        with pytest.raises(tectum.ClientClosed):
            ended.send(frames(1)[0])


def test_who_is_refused_and_not_told_why_is_told_that() -> None:
    conversation = Conversation("a-1", 2**20)

    before = conversation.broken_off()
    conversation.hear(stream_pb2.StreamPerceptionResponse(ready=stream_pb2.StreamReady()))
    after = conversation.broken_off()

    assert "refused the stream" in str(before)
    assert "while a frame was being sent" in str(after)


def test_an_answer_out_of_turn_is_not_read() -> None:
    result = stream_pb2.StreamPerceptionResponse(result=stream_pb2.FrameResult(frame_id=1))
    ready = stream_pb2.StreamPerceptionResponse(ready=stream_pb2.StreamReady())
    conversation = Conversation("a-1", 2**20)

    with pytest.raises(ValueError, match="result out of turn"):
        conversation.hear(result)
    assert conversation.hear(ready) is None
    with pytest.raises(ValueError, match="ready out of turn"):
        conversation.hear(ready)
    with pytest.raises(ValueError, match="None out of turn"):
        conversation.hear(stream_pb2.StreamPerceptionResponse())


# Ends


@pytest.fixture
async def complaints() -> list[dict[str, Any]]:
    """What asyncio says about errors that nobody looked at."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def slow_to_shut(shutting: asyncio.Event, shut: asyncio.Event) -> AsyncIterator[tectum.Frame]:
    """A camera that needs a moment at its end."""
    try:
        async for frame in paced_async(1000):
            yield frame
    finally:
        shutting.set()
        await asyncio.sleep(0.3)
        shut.set()


async def test_closing_a_stream_ends_it_on_both_sides(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    stream, parallel = client.stream(embed=True), aclient.stream(embed=True)
    reading = asyncio.create_task(collect(stream))
    reading_too = asyncio.create_task(collect(parallel))
    await asyncio.to_thread(wait_for, lambda: len(worker.seen) == 2)
    stream.close()
    await parallel.close()

    assert await reading == await reading_too == []
    for seen in worker.seen:
        assert await asyncio.to_thread(seen.ended.wait, 2)
    for ended in (stream, parallel):
        with pytest.raises(tectum.ClientClosed):
            ended.send(frames(1)[0])


async def test_closing_a_client_ends_its_streams(worker: FakeWorker) -> None:
    client, aclient = tectum.Client(worker.address), tectum.AsyncClient(worker.address)
    tasks = [
        asyncio.create_task(collect(client.stream(embed=True))),
        asyncio.create_task(collect(aclient.stream(embed=True))),
    ]
    await asyncio.to_thread(wait_for, lambda: len(worker.seen) == 2)
    client.close()
    await aclient.close()

    assert await asyncio.gather(*tasks) == [[], []]


async def test_who_is_cancelled_while_closing_is_cancelled_and_the_stream_ends_all_the_same(
    worker: FakeWorker, aclient: tectum.AsyncClient, complaints: list[dict[str, Any]]
) -> None:
    shutting, shut = asyncio.Event(), asyncio.Event()
    stream = aclient.stream(slow_to_shut(shutting, shut), embed=True)
    await anext(stream)
    reading = asyncio.create_task(collect(stream))

    closing = asyncio.create_task(stream.close())
    await shutting.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    assert not shut.is_set()  # and so its end was not waited for
    await asyncio.wait_for(reading, 2)
    await asyncio.wait_for(shut.wait(), 2)
    assert await asyncio.to_thread(worker.seen[0].ended.wait, 2)
    with pytest.raises(tectum.ClientClosed):
        stream.send(frames(1)[0])
    gc.collect()
    assert complaints == []


async def test_closing_waits_until_the_camera_is_shut(aclient: tectum.AsyncClient) -> None:
    shutting, shut = asyncio.Event(), asyncio.Event()
    stream = aclient.stream(slow_to_shut(shutting, shut), embed=True)
    await anext(stream)

    await stream.close()

    assert shut.is_set()


async def test_waiting_for_a_result_can_be_given_up_without_harm(
    aclient: tectum.AsyncClient,
) -> None:
    async with aclient.stream(embed=True) as stream:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.05)
        stream.send(frames(1)[0])

        assert (await anext(stream)).frame_id == 0


def test_a_dropped_stream_ends_and_leaves_no_thread(
    worker: FakeWorker, client: tectum.Client
) -> None:
    stream = client.stream(endless(0.01), embed=True)
    next(stream)
    del stream
    gc.collect()

    assert worker.seen[0].ended.wait(2)
    wait_for(lambda: not any(t.name == "tectum-feed" for t in threading.enumerate()))


async def test_leaving_a_loop_early_is_clean(
    worker: FakeWorker, client: tectum.Client, aclient: tectum.AsyncClient
) -> None:
    def reading() -> None:
        with client.stream(endless(0.01), embed=True) as stream:
            for _ in stream:
                break

    await asyncio.to_thread(reading)
    async with aclient.stream(embed=True) as parallel:
        parallel.send(frames(1)[0])
        async for _ in parallel:
            break

    for seen in worker.seen:
        assert await asyncio.to_thread(seen.ended.wait, 2)
