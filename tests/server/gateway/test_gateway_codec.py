"""Bytes and arrays as JSON carries them, and the PNG writer against a reader not our own."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

import tectum
from tectum_server.gateway import codec, png

SIDES = st.integers(1, 40)


@given(arrays.arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3))))
def test_a_picture_is_read_back_as_it_was(pixels: NDArray[np.uint8]) -> None:
    with Image.open(io.BytesIO(png.encode(pixels))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_a_picture_need_not_lie_in_order_in_memory() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)[::-1, ::2]

    with Image.open(io.BytesIO(png.encode(pixels))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@given(st.binary(min_size=1), st.sampled_from(["", "data:image/jpeg;base64,"]), st.booleans())
def test_a_file_survives_base64(content: bytes, prefix: str, wrapped: bool) -> None:
    text = (base64.encodebytes if wrapped else base64.b64encode)(content).decode()

    assert codec.decode_image(prefix + text) == content


@pytest.mark.parametrize("text", ["?", "a", "aGk", "äöü", "data:image/png,aGk=", "https://a/b.png"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        codec.decode_image(text)


@given(
    st.sampled_from(["float32", "float16", "int8"]).flatmap(
        lambda name: st.tuples(
            st.just(name),
            arrays.arrays(
                np.dtype(name),
                st.integers(1, 9),
                elements=st.integers(-127, 127) if name == "int8" else st.floats(-9, 9, width=16),
            ),
        )
    ),
    st.sampled_from(["float", "base64"]),
)
def test_a_vector_survives_either_encoding(typed: tuple[str, Any], encoding: Any) -> None:
    name, vector = typed

    again = codec.parse_vector(codec.vector(vector, encoding), name)

    assert again.dtype == vector.dtype
    np.testing.assert_array_equal(again, vector)


def test_more_numbers_than_can_be_listed_are_refused_but_not_as_base64() -> None:
    half = np.zeros(codec.MAX_LISTED // 2 + 1, np.float32)

    codec.check_listed([half], "float")
    codec.check_listed([half, half], "base64")
    with pytest.raises(tectum.InvalidInput, match="or base64 for any number"):
        codec.check_listed([half, half], "float")


def test_nan_becomes_null_and_nothing_else_changes() -> None:
    array = np.array([[1.5, np.nan], [np.nan, -2]], np.float32)

    assert codec.numbers(array) == [[1.5, None], [None, -2.0]]
    assert codec.numbers(np.array([[True, False]])) == [[True, False]]
