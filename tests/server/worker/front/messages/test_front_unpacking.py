"""Messages are counted through before they are unpacked: as they are, and only so far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from tests.server.worker.asking import (
    IMAGE,
    clips,
    fill,
    images,
    mask,
    options,
    pairs,
    similar,
    texts,
    timed,
)
from tests.server.worker.frames import frame
from tests.server.worker.messages import floats, raw
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Camera, Fronted, Told

from tectum.v1 import embed_pb2, perception_pb2, reconstruct_pb2, stream_pb2
from tectum_server.worker.front.messages.unpacking import Unpacking, _known, elements

MOST = 10_000
DAMAGED = b"\x12\xff\xff\xff\xff\x7f"
PERCEPTION, MODELS = "tectum.v1.PerceptionService", "tectum.v1.ModelService"
VECTOR = {"embedding": {"values": floats(np.ones(16)), "space_id": "0" * 16, "scale": 1.0}}


def counted(message: Message, most: int = MOST) -> int:
    descriptor: Any = message.DESCRIPTOR
    return elements(message.SerializeToString(), _known(descriptor), most)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (embed_pb2.EmbedImagesRequest(), 0),
        (images(IMAGE), 5),  # images, raw, height, width, data
        (images(IMAGE, IMAGE), 10),
        (texts("a", "b", options=options(priority=1)), 4),
        (clips(4), 21),
        (fill(mask=mask(kind=5, hidden=[1, 2, 3])), 6),  # mask, kind, hidden and what it lists
        (similar([{}] * 7, []), 7),
    ],
)
def test_every_field_and_every_element_counts(message: Message, wanted: int) -> None:
    assert counted(message) == wanted


def test_packed_or_not_the_elements_count() -> None:
    one_by_one = b"\x20\x01" * 3  # field 4 of a mask, a number each
    assert list(reconstruct_pb2.Mask.FromString(one_by_one).hidden) == [1, 1, 1]

    assert elements(one_by_one, _known(reconstruct_pb2.Mask.DESCRIPTOR), MOST) == 3


@pytest.mark.parametrize("length", [11, 12, 1000, 1_000_000])
def test_counting_ends_once_it_is_too_much(length: int) -> None:
    assert counted(similar([{}] * length, []), most=10) == 11


@given(st.binary(max_size=200))
def test_whatever_comes_is_counted_or_left_to_who_unpacks_it(data: bytes) -> None:
    known = _known(stream_pb2.StreamPerceptionRequest.DESCRIPTOR)

    assert 0 <= elements(data, known, MOST) <= MOST + 1
    assert elements(data, known, 5) <= 6


@pytest.mark.parametrize(
    "message",
    [
        images(*[IMAGE] * 64),
        texts(*["a"] * 64),
        clips(64),
        similar([VECTOR] * 32, [VECTOR] * 32),
        pairs(64),
        timed(*range(64)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_request_of_as_many_items_as_are_allowed_is_far_from_it(message: Message) -> None:
    assert counted(message) <= 16 * 64


def test_the_pixels_of_a_picture_are_not_counted() -> None:
    assert counted(images(raw(np.full((600, 600, 3), 10, np.uint8)))) == 5


def test_a_worker_that_allows_more_items_allows_more_of_everything() -> None:
    service = perception_pb2.DESCRIPTOR.services_by_name["PerceptionService"]
    limits = [Unpacking((service,), items)._most for items in (1, 64, 100_000)]

    assert limits[0] > 2**16
    assert limits[2] >= 16 * 100_000


# ---------------------------------------------------------------- over the wire


def test_a_request_with_too_much_in_it_is_refused_and_its_successor_answered(
    front: Fronted, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)

    told = front.client.refused("ComputeSimilarity", similar([{}] * 100_000, [{"text": "a"}]))

    assert (told.code, told.reason, told.retries) == ("INVALID_ARGUMENT", "TOO_MANY_ITEMS", False)
    assert "more than 66560 fields and list elements" in told.message
    assert front.client.ask("EmbedImages", images(raw(np.zeros((300, 300, 3), np.uint8)))).results


def test_a_frame_with_too_much_in_it_ends_its_stream(front: Fronted) -> None:
    stream, odd = Camera(front.client, stream_pb2.StreamSetup(embed=True)), frame(1)
    stream.ready()
    odd.MergeFromString(b"\xf8\x07\x01" * 100_000)  # a field that nobody knows

    stream.send(odd)

    told = stream.failed()
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ITEMS")


@pytest.mark.parametrize("length", [0, 100_000])
def test_a_damaged_message_is_refused_for_that(
    front: Fronted, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    call: Any = front.client.channel.unary_unary(f"/{PERCEPTION}/EmbedImages")

    told = Told.of(call.future(DAMAGED + b"\x12" * length, timeout=30).exception())

    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE")
    assert told.message == "the message is damaged"
    assert front.client.health() == "SERVING"
    assert "a call failed" not in caplog.text


@pytest.mark.parametrize("rpc", [f"{PERCEPTION}/EmbedImages", f"{MODELS}/ListModels"])
def test_nothing_is_unpacked_of_who_has_no_credentials(
    fronted: Callable[..., Fronted], tokens: Path, rpc: str
) -> None:
    call: Any = fronted(tokens=tokens).client.channel.unary_unary(f"/{rpc}")

    told = Told.of(call.future(DAMAGED, timeout=30).exception())

    assert (told.code, told.reason) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")


def test_nor_of_what_is_too_large(fronted: Callable[..., Fronted]) -> None:
    front = fronted(max_message_bytes=1000)
    call: Any = front.client.channel.unary_unary(f"/{PERCEPTION}/EmbedImages")

    told = Told.of(call.future(DAMAGED + b"\x12" * 1000, timeout=30).exception())

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
