"""Large pictures stay in the message as it came, and all is read as if they had been unpacked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from tests.server.worker.asking import clips, fill, images, pairs, similar
from tests.server.worker.messages import raw
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Fronted

from tectum.v1 import embed_pb2, image_pb2, reconstruct_pb2
from tectum_server.worker.front.messages import parts as sizes
from tectum_server.worker.front.messages.parts import Parts, pictures_in

SIDE = 700
LARGE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
FILES = st.builds(image_pb2.Image, encoded=st.binary(max_size=60))
PIXELS = st.builds(
    image_pb2.Image,
    raw=st.builds(
        image_pb2.RawImage, height=st.integers(0, 9), width=st.integers(0, 9), data=st.binary()
    ),
)
REQUESTS = st.builds(
    embed_pb2.EmbedImagesRequest,
    images=st.lists(FILES | PIXELS, max_size=5),
)


def restored(message: Message, parts: Parts) -> Message:
    """With pictures in the places of their names."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                restored(inner, parts)
        elif field.type == field.TYPE_BYTES:
            setattr(message, field.name, bytes(parts.of(value)))
    return message


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small pictures some are large enough."""
    monkeypatch.setattr(sizes, "LARGE", 1)
    monkeypatch.setattr(sizes, "_PART", 8)


def test_only_pictures_are_cut_out() -> None:
    assert pictures_in(embed_pb2.EmbedTextsRequest.DESCRIPTOR) == {}
    found = pictures_in(reconstruct_pb2.ReconstructRequest.DESCRIPTOR)
    names = {reconstruct_pb2.ReconstructRequest.DESCRIPTOR.fields_by_number[n].name for n in found}

    assert names == {"image", "clip", "image_condition"}
    assert pictures_in(image_pb2.Image.DESCRIPTOR) == {1: None, 2: {3: None}}


@pytest.mark.usefixtures("small")
@given(REQUESTS)
def test_a_message_is_the_same_with_its_pictures_back_in_their_places(
    request: embed_pb2.EmbedImagesRequest,
) -> None:
    parts, data = Parts(), request.SerializeToString()

    cut = parts.cut(data, pictures_in(request.DESCRIPTOR))

    assert restored(embed_pb2.EmbedImagesRequest.FromString(cut), parts) == request


@pytest.mark.usefixtures("small")
@given(st.binary(max_size=80) | REQUESTS.map(lambda one: one.SerializeToString()[:-1]))
def test_what_is_damaged_is_so_with_and_without_its_pictures(data: bytes) -> None:
    def read(what: bytes) -> Message | None:
        try:
            return embed_pb2.EmbedImagesRequest.FromString(what)
        except DecodeError:
            return None

    parts = Parts()
    whole, cut = read(data), read(parts.cut(data, pictures_in(images().DESCRIPTOR)))

    assert (whole is None) == (cut is None)
    assert whole is None or cut is None or restored(cut, parts) == whole


@pytest.mark.usefixtures("small")
def test_of_a_picture_that_comes_twice_the_last_counts_as_ever() -> None:
    first, second = (image_pb2.Image(encoded=bytes([n]) * 50) for n in (1, 2))
    data = first.SerializeToString() + second.SerializeToString()
    parts = Parts()

    cut = parts.cut(data, pictures_in(first.DESCRIPTOR))

    assert bytes(parts.of(image_pb2.Image.FromString(cut).encoded)) == second.encoded


def test_a_name_of_another_message_is_none() -> None:
    given = images(raw(LARGE))
    data, places = given.SerializeToString(), pictures_in(given.DESCRIPTOR)
    mine, theirs = Parts(), Parts()
    name = embed_pb2.EmbedImagesRequest.FromString(mine.cut(data, places)).images[0].raw.data

    theirs.cut(data, places)

    assert len(mine.of(name)) == LARGE.size
    assert theirs.of(name) == name


def test_what_is_left_of_a_large_message_is_small_and_a_small_one_is_left_alone() -> None:
    large, little = images(raw(LARGE)), images(raw(LARGE[:9, :9]))

    lengths = [
        len(Parts().cut(m.SerializeToString(), pictures_in(m.DESCRIPTOR))) for m in (large, little)
    ]

    assert lengths == [pytest.approx(40, abs=10), len(little.SerializeToString())]


@pytest.mark.parametrize(
    ("rpc", "request_of"),
    [
        ("EmbedImages", images(raw(LARGE), raw(LARGE[::-1]))),
        ("EmbedClips", clips(4)),
        ("PredictLatentActions", pairs()),
        ("Reconstruct", fill(image=raw(LARGE))),
        ("ComputeSimilarity", similar([{"image": raw(LARGE)}], [{"text": "a"}])),
    ],
)
def test_the_engine_is_given_the_pixels_that_were_sent(
    front: Fronted,
    engine: ScriptedEngine,
    rpc: str,
    request_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizes, "LARGE", 1)
    monkeypatch.setattr(sizes, "_PART", 1)
    engine.answers(zeros)

    given = front.client.begin(rpc, request_of)
    job = engine.begun.get(timeout=60)
    given.exception()

    seen = [array for item in job.items for array in item.arrays]
    assert {array.dtype for array in seen} <= {np.dtype(np.uint8)}
    if rpc == "EmbedImages":
        assert [np.array_equal(a, b) for a, b in zip(seen, (LARGE, LARGE[::-1]), strict=True)]


def test_large_pixels_that_stay_where_they_came_wait_for_no_thread(
    front: Fronted, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise AssertionError("a thread was asked for")

    engine.answers(zeros)
    monkeypatch.setattr(front.front._images._pool, "submit", none)
    large = raw(np.tile(LARGE, (2, 2, 1)))

    assert len(front.client.ask("EmbedImages", images(large)).results) == 1
