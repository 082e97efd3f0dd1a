"""A connection on which nothing passes any more is noticed, and another one taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.fake_worker import FakeWorker
from tests.client.streams import SMALL, accepted, closed, heard
from tests.silent_proxy import SilentProxy

import tectum
from tectum import conversation, shell
from tectum.conversation import Conversation
from tectum.v1 import stream_pb2

PATIENCE = 30.0


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients look whether their connections live every 0.2 s."""
    monkeypatch.setattr(shell, "ALIVE_EVERY", 0.2)
    monkeypatch.setattr(shell, "ALIVE_WITHIN", 0.2)


@pytest.fixture
def proxy(worker: FakeWorker) -> Iterator[SilentProxy]:
    with SilentProxy(worker.port) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: SilentProxy) -> Iterator[tectum.Client]:
    with tectum.Client(proxy.address) as client:
        yield client


@pytest.fixture(params=["sync", "async"])
async def open_stream(
    request: pytest.FixtureRequest, proxy: SilentProxy, through: tectum.Client
) -> AsyncIterator[Any]:
    async with tectum.AsyncClient(proxy.address) as client:
        yield through.stream if request.param == "sync" else client.stream


async def until_heard(stream: Any) -> tectum.FrameResult:
    """Send frames until one is answered."""
    reading = asyncio.create_task(heard(stream))
    async with asyncio.timeout(PATIENCE):
        while not reading.done():
            with suppress(tectum.ClientClosed):  # what reads says why
                stream.send(tectum.Frame(SMALL))
            await asyncio.wait({reading}, timeout=0.05)
        return await reading


@pytest.mark.usefixtures("looks_often")
async def test_a_stream_whose_connection_is_silent_goes_on_over_another_one(
    open_stream: Any, proxy: SilentProxy, worker: FakeWorker
) -> None:
    stream = open_stream(embed=True, reconnect=60.0)
    await accepted(stream)
    before = await until_heard(stream)

    proxy.silence()
    after = await until_heard(stream)
    await closed(stream)

    assert after.frame_id > before.frame_id
    assert stream.lost > 0
    assert len(proxy.links) == 2
    assert [seen.rpc for seen in worker.seen] == ["StreamPerception"] * 2


@pytest.mark.usefixtures("looks_often")
async def test_without_reconnect_a_silent_connection_is_raised(
    open_stream: Any, proxy: SilentProxy
) -> None:
    stream = open_stream(embed=True)
    await accepted(stream)
    await until_heard(stream)

    proxy.silence()
    with pytest.raises(tectum.Unavailable):
        await until_heard(stream)


@pytest.mark.usefixtures("looks_often")
def test_calls_find_another_connection_once_theirs_is_silent(
    through: tectum.Client, proxy: SilentProxy
) -> None:
    through.embed_images([SMALL])
    proxy.silence()

    ends, found = time.monotonic() + PATIENCE, None
    while found is None and time.monotonic() < ends:
        with suppress(tectum.DeadlineExceeded, tectum.Unavailable):
            found = through.embed_images([SMALL], timeout=0.5, retries=0)

    assert found is not None
    assert len(proxy.links) == 2


@pytest.mark.usefixtures("looks_often")
def test_a_silent_connection_is_noticed_while_nothing_is_asked(
    through: tectum.Client, proxy: SilentProxy
) -> None:
    through.embed_images([SMALL])

    proxy.silence()

    assert proxy.links[0].left.wait(PATIENCE)
    assert len(through.embed_images([SMALL], timeout=PATIENCE, retries=0)) == 1


def test_a_new_client_has_a_connection_of_its_own(
    through: tectum.Client, proxy: SilentProxy
) -> None:
    through.embed_images([SMALL])
    proxy.silence()

    with tectum.Client(proxy.address) as another:
        found = another.embed_images([SMALL], timeout=5.0, retries=0)

    assert len(found) == 1
    assert len(proxy.links) == 2


async def test_a_worker_that_says_nothing_of_frames_under_way_is_lost_too(
    open_stream: Any, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "SILENT", 0.1)
    worker.orders.hold_frames.clear()
    stream = open_stream(embed=True, lifespan=0.1, reconnect=60.0)
    await accepted(stream)
    stream.send(tectum.Frame(SMALL))

    async with asyncio.timeout(PATIENCE):
        while len(worker.seen) < 2:
            await asyncio.sleep(0.01)
    worker.orders.hold_frames.set()
    result = await until_heard(stream)
    await closed(stream)

    assert result.frame_id > 0
    assert stream.lost > 0


async def test_a_stream_without_frames_under_way_may_be_silent(
    open_stream: Any, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "SILENT", 0.0)
    stream = open_stream(embed=True, lifespan=0.1)
    await accepted(stream)

    await asyncio.sleep(4 * conversation.LOOK)

    assert (await until_heard(stream)).frame_id == 0
    await closed(stream)


def opened(lifespan: float) -> Conversation:
    """An accepted stream with a frame that waits."""
    stream = Conversation("a-1", 2**20)
    stream.hear(stream_pb2.StreamPerceptionResponse(ready=stream_pb2.StreamReady()))
    stream.say(tectum.Frame(SMALL, lifespan=lifespan))
    return stream


@given(
    lifespan=st.floats(0.1, 60.0),
    heard_at=st.lists(st.floats(0.0, 1e3), max_size=5),
    leaving=st.booleans(),
)
def test_silence_is_counted_from_the_last_sign_and_beyond_the_longest_lifespan(
    lifespan: float, heard_at: list[float], leaving: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = 0.0
        patch.setattr(time, "monotonic", lambda: now)
        stream = opened(lifespan)
        assert stream.silent(1e6) is None  # nothing is under way
        now = 5.0
        stream.to_send()
        if not leaving:
            assert stream.to_send() is None  # who sends asks for more: the frame has left
        for later in sorted(heard_at):
            now = 5.0 + later
            clock = stream_pb2.StreamPerceptionResponse(clock=stream_pb2.ClockReply())
            stream.hear(clock)
    beyond = conversation.SILENT_SENDING if leaving else conversation.SILENT
    allowed = now + max(lifespan, 1.0) + beyond

    assert stream.silent(allowed - 0.01) is None
    assert isinstance(stream.silent(allowed + 0.01), tectum.Unavailable)
