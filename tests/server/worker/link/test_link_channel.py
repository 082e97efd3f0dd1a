"""Messages on a stream: framed, typed, and nothing that is not genuine."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.jobs import (
    EmbedClips,
    EmbedImages,
    EmbedTexts,
    FillActions,
    FillClip,
    FilledToken,
    FillImage,
    FillText,
    ItemFailure,
    LatentActions,
    MaskSpec,
    ModelEntry,
)
from tectum_server.worker.link import channel as channel_module
from tectum_server.worker.link.arrays import ArrayRef
from tectum_server.worker.link.channel import Channel, MessageTooLong
from tectum_server.worker.link.messages import (
    Answer,
    AnswerItem,
    Cancel,
    Catalogue,
    ExpectControl,
    FromEngine,
    FromFront,
    Load,
    Loaded,
    Refusal,
    Released,
    Submit,
    SubmitItem,
    Unload,
)

REF = ArrayRef(64, "float32", (2, 3))
MASK = MaskSpec("explicit", None, 2**64 - 1, (1, 2))
FRONT: list[FromFront] = [
    *(
        Submit(1, "arm", operation, 2, 12.5, (SubmitItem((REF,), "ü"), SubmitItem((), "")))
        for operation in (
            EmbedImages("joint"),
            EmbedTexts(),
            EmbedClips("tokens"),
            FillImage(MASK),
            FillClip(MASK),
            FillText(None, 5),
            FillText(MASK, 5),
            FillActions(MASK, True, False),
            LatentActions(True, True),
        )
    ),
    Cancel(3),
    Released(128),
    Load(4, "arm", "", True),
    Unload(5, "arm"),
    ExpectControl(),
]
ENGINE: list[FromEngine] = [
    Answer(
        1,
        "v",
        (
            AnswerItem((REF,), (FilledToken("a", True, (("b", 0.5),), 0.1),), "x"),
            ItemFailure(9, "m", "f"),
        ),
        0.1,
        0.2,
        3,
        64,
    ),
    Answer(1, "v", (), 0.0, 0.0, 0, None),
    Refusal(1, 11, "full", "", 0.5),
    Refusal(1, 2, "no", "images[0]", None),
    Loaded(1, None),
    Loaded(
        1, ModelEntry("arm", "v", "ready", True, b"\0\xff", "# card", {"pooled": "0f"}, 14.0, -1.0)
    ),
    Catalogue(()),
]


Front = Channel[FromEngine, FromFront]
Engine = Channel[FromFront, FromEngine]
Pair = tuple[Front, Engine]
Heard = TypeVar("Heard")


async def ends() -> Pair:
    """A front's end and an engine's, joined."""
    ours, theirs = socket.socketpair()
    front: Front = await Channel.over(ours, msgspec.msgpack.Decoder(FromEngine))
    engine: Engine = await Channel.over(theirs, msgspec.msgpack.Decoder(FromFront))
    return front, engine


async def engine_end(sock: socket.socket) -> Engine:
    """The engine's end of a socket."""
    return await Channel.over(sock, msgspec.msgpack.Decoder(FromFront))


async def heard(channel: Channel[Heard, Any], count: int) -> list[Heard]:
    """The next so many messages."""
    found: list[Heard] = []
    there = asyncio.Event()

    def hear(message: Heard) -> None:
        found.append(message)
        if len(found) == count:
            there.set()

    hearing = asyncio.ensure_future(channel.hear(hear))
    async with asyncio.timeout(10):
        await there.wait()
    hearing.cancel()
    return found


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    front, engine = await ends()
    yield front, engine
    front.close()
    engine.close()


@pytest.mark.parametrize("message", FRONT, ids=lambda m: type(m).__name__)
async def test_whatever_a_front_says_arrives(pair: Pair, message: FromFront) -> None:
    pair[0].send(message)

    assert await heard(pair[1], 1) == [message]


@pytest.mark.parametrize("message", ENGINE, ids=lambda m: type(m).__name__)
async def test_whatever_an_engine_says_arrives(pair: Pair, message: FromEngine) -> None:
    pair[1].send(message)

    assert await heard(pair[0], 1) == [message]


@given(st.lists(st.integers(0, 2**63), max_size=30), st.integers(1, 20_000))
def test_messages_arrive_one_by_one_in_order_however_large(numbers: list[int], size: int) -> None:
    async def talk() -> None:
        front, engine = await ends()
        for number in numbers:
            front.send(Load(number, "x" * size, "", False))

        told = await heard(engine, len(numbers)) if numbers else []

        assert told == [Load(number, "x" * size, "", False) for number in numbers]
        front.close()
        engine.close()

    asyncio.run(talk())


async def test_the_other_ends_going_is_a_connection_error(pair: Pair) -> None:
    pair[0].close()

    with pytest.raises(ConnectionError, match="the other end has gone"):
        await pair[1].hear(lambda _: None)


async def test_an_end_in_the_middle_of_a_message_is_one_too() -> None:
    ours, theirs = socket.socketpair()
    channel = await engine_end(ours)
    theirs.sendall(struct.pack("<I", 100) + b"half")
    theirs.close()

    with pytest.raises(ConnectionError, match="the other end has gone"):
        await channel.hear(lambda _: None)
    channel.close()


async def test_what_the_other_end_would_not_take_is_not_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "_LARGEST", 1000)

    with pytest.raises(MessageTooLong, match="bytes, at most 1000 are allowed"):
        pair[0].send(Load(1, "x" * 1000, "", False))
    pair[0].send(Load(2, "x" * 900, "", False))

    assert await heard(pair[1], 1) == [Load(2, "x" * 900, "", False)]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (struct.pack("<I", 2**32 - 1), ConnectionError),
        (struct.pack("<I", 3) + b"\xc1\xc1\xc1", msgspec.DecodeError),
        (struct.pack("<I", 1) + b"\x80", msgspec.DecodeError),
    ],
)
async def test_what_is_not_genuine_is_an_error(data: bytes, error: type[Exception]) -> None:
    ours, theirs = socket.socketpair()
    channel = await engine_end(ours)
    theirs.sendall(data)

    with pytest.raises(error):
        await channel.hear(lambda _: None)
    theirs.close()
    channel.close()


async def test_what_is_said_before_the_end_is_heard_and_then_that_it_ends(pair: Pair) -> None:
    told: list[FromFront] = []
    pair[0].send(Cancel(1))
    pair[0].send(Cancel(2))
    pair[0].close()

    with pytest.raises(ConnectionError):
        await pair[1].hear(told.append)

    assert told == [Cancel(1), Cancel(2)]


async def test_what_comes_before_somebody_listens_waits_and_little_of_it_is_read(
    pair: Pair,
) -> None:
    messages: list[FromFront] = [Cancel(0)]
    messages += (Load(number, "x" * 2**20, "", False) for number in range(8))
    for message in messages:
        pair[0].send(message)

    await asyncio.sleep(0.1)

    assert len(pair[1]._arrived) <= 2**18  # what asyncio reads at once
    assert await heard(pair[1], len(messages)) == messages


async def test_a_message_that_came_before_somebody_listens_is_heard_although_none_follows(
    pair: Pair,
) -> None:
    pair[0].send(Cancel(1))
    await asyncio.sleep(0.05)

    assert await heard(pair[1], 1) == [Cancel(1)]


async def test_a_message_that_cannot_be_handled_ends_the_hearing(pair: Pair) -> None:
    def refuse(message: FromFront) -> None:
        told.append(message)
        raise ValueError("it makes no sense")

    told: list[FromFront] = []
    pair[0].send(Cancel(1))
    pair[0].send(Cancel(2))

    with pytest.raises(ValueError, match="it makes no sense"):
        await pair[1].hear(refuse)
    pair[0].send(Cancel(3))
    await asyncio.sleep(0.05)

    assert told == [Cancel(1)]


async def test_what_is_said_to_who_has_gone_is_dropped(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(ConnectionError):
        await pair[0].hear(lambda _: None)

    pair[0].send(Cancel(1))
    await asyncio.sleep(0.05)

    assert pair[0]._outgoing == []
