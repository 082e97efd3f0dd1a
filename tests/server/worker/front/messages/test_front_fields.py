"""A message's fields are where protobuf wrote them; bytes that are none end the search."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum.v1 import embed_pb2, image_pb2
from tectum_server.worker.front.messages.fields import as_varint, fields

BYTES = st.binary(max_size=300)


def alone(number: int, written: bytes) -> bytes:
    """A message with one field of bytes."""
    return as_varint(number << 3 | 2) + as_varint(len(written)) + written


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_written_as_protobuf_writes_it(value: int) -> None:
    image = image_pb2.RawImage(height=value % 2**32)
    written = image.SerializeToString()

    assert written == (b"\x08" + as_varint(image.height) if image.height else b"")
    (found,) = fields(b"\x08" + as_varint(value), 0, 1 + len(as_varint(value)))
    assert (found.number, found.named, found.ends) == (1, 1, 1 + len(as_varint(value)))


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_each_field_is_where_its_bytes_are(texts: list[bytes]) -> None:
    asked = embed_pb2.EmbedImagesRequest(images=[image_pb2.Image(encoded=one) for one in texts])
    data = asked.SerializeToString()

    found = list(fields(data, 0, len(data)))

    assert [data[one.begins : one.ends] for one in found] == [
        one.SerializeToString() for one in asked.images
    ]
    rest = [data[one.named : one.begins] for one in found]
    assert rest == [as_varint(one.ends - one.begins) for one in found]


def test_numbers_of_four_and_eight_bytes_are_passed() -> None:
    data = b"\x0d" + bytes(4) + b"\x11" + bytes(8) + alone(3, b"xy")

    assert [(one.number, one.ends) for one in fields(data, 0, len(data))] == [
        (1, 5),
        (2, 14),
        (3, 18),
    ]


def test_only_what_lies_between_is_looked_at() -> None:
    data = alone(1, b"ab") + alone(2, b"cde") + alone(3, b"f")

    assert [one.number for one in fields(data, 4, 9)] == [2]


def test_a_field_that_is_cut_short_ends_beyond_the_message() -> None:
    whole = alone(1, b"abcdef")

    (found,) = fields(whole[:-2], 0, len(whole) - 2)

    assert found.ends == len(whole)


@pytest.mark.parametrize(
    "data", [b"\x0e", b"\x0f\x00", b"\x80", b"\x08" + b"\xff" * 10, b"\x0a\x80"]
)
def test_what_is_no_field_is_refused(data: bytes) -> None:
    with pytest.raises(IndexError):
        list(fields(data, 0, len(data)))


@given(BYTES)
def test_whatever_comes_the_search_goes_on_or_ends(data: bytes) -> None:
    at = 0
    try:
        for one in fields(data, 0, len(data)):
            assert at < one.named <= one.begins <= one.ends
            at = one.ends
    except IndexError:
        pass
