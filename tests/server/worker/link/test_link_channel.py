"""Messages on a stream: framed, typed, and nothing that is not genuine."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

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


Pair = tuple[Channel[FromEngine, FromFront], Channel[FromFront, FromEngine]]


async def ends() -> Pair:
    """A front's end and an engine's, joined."""
    sides = socket.socketpair()
    streams = [await asyncio.open_unix_connection(sock=side) for side in sides]
    front: Channel[FromEngine, FromFront] = Channel(
        *streams[0], msgspec.msgpack.Decoder(FromEngine)
    )
    engine: Channel[FromFront, FromEngine] = Channel(
        *streams[1], msgspec.msgpack.Decoder(FromFront)
    )
    return front, engine


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    front, engine = await ends()
    yield front, engine
    front.close()
    engine.close()


@pytest.mark.parametrize("message", FRONT, ids=lambda m: type(m).__name__)
async def test_whatever_a_front_says_arrives(pair: Pair, message: FromFront) -> None:
    pair[0].send(message)

    assert await pair[1].receive() == message


@pytest.mark.parametrize("message", ENGINE, ids=lambda m: type(m).__name__)
async def test_whatever_an_engine_says_arrives(pair: Pair, message: FromEngine) -> None:
    pair[1].send(message)

    assert await pair[0].receive() == message


@given(st.lists(st.integers(0, 2**63), max_size=30), st.integers(1, 20_000))
def test_messages_arrive_one_by_one_in_order_however_large(numbers: list[int], size: int) -> None:
    async def talk() -> None:
        front, engine = await ends()
        for number in numbers:
            front.send(Load(number, "x" * size, "", False))

        heard = [await engine.receive() for _ in numbers]

        assert heard == [Load(number, "x" * size, "", False) for number in numbers]
        front.close()
        engine.close()

    asyncio.run(talk())


async def test_the_other_ends_going_is_a_connection_error(pair: Pair) -> None:
    pair[0].close()

    with pytest.raises(ConnectionError, match="the other end has gone"):
        await pair[1].receive()


async def test_an_end_in_the_middle_of_a_message_is_one_too() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    channel: Channel[FromFront, FromEngine] = Channel(
        reader, writer, msgspec.msgpack.Decoder(FromFront)
    )
    theirs.sendall(struct.pack("<I", 100) + b"half")
    theirs.close()

    with pytest.raises(ConnectionError, match="the other end has gone"):
        await channel.receive()
    channel.close()


async def test_what_the_other_end_would_not_take_is_not_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "_LARGEST", 1000)

    with pytest.raises(MessageTooLong, match="bytes, at most 1000 are allowed"):
        pair[0].send(Load(1, "x" * 1000, "", False))
    pair[0].send(Load(2, "x" * 900, "", False))

    assert await pair[1].receive() == Load(2, "x" * 900, "", False)


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
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    channel: Channel[FromFront, FromEngine] = Channel(
        reader, writer, msgspec.msgpack.Decoder(FromFront)
    )
    theirs.sendall(data)

    with pytest.raises(error):
        await channel.receive()
    theirs.close()
    channel.close()
