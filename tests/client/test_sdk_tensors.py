"""Arrays cross the wire unchanged, whatever their type, shape, byte order and layout."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

import tectum
from tectum import images, tensors
from tectum.v1 import image_pb2, tensor_pb2

DTYPES = [np.float32, np.float16, np.int8, np.uint8, np.int32, np.int64, np.bool_]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=tensors.MAX_AXES, min_side=0, max_side=3)


@st.composite
def any_array(draw: st.DrawFn) -> NDArray[Any]:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    dtype = dtype.newbyteorder(draw(st.sampled_from("<>")))
    finite: dict[str, Any] = {"allow_nan": False, "allow_infinity": False}
    elements = arrays.from_dtype(dtype, **(finite if dtype.kind == "f" else {}))
    array = draw(arrays.arrays(dtype, draw(SHAPES), elements=elements))
    return array.T if draw(st.booleans()) else array


@given(any_array())
def test_an_array_comes_back_as_it_went(array: NDArray[Any]) -> None:
    message = tensors.to_wire(array, "values")
    again = tensors.from_wire(tensor_pb2.Tensor.FromString(message.SerializeToString()))

    assert again.dtype == array.dtype.newbyteorder("=")
    assert again.shape == array.shape
    np.testing.assert_array_equal(again, array)
    assert len(message.data) == array.size * array.dtype.itemsize


def test_every_type_of_the_contract_is_known() -> None:
    known = set(tensors.WIRE_DTYPES)

    assert known == set(tensor_pb2.DataType.values()) - {tensor_pb2.DATA_TYPE_UNSPECIFIED}


def test_the_wire_is_little_endian() -> None:
    assert tensors.to_wire(np.array([1], ">i4"), "values").data == b"\1\0\0\0"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(tectum.InvalidInput, match="values: found NaN or infinity") as caught:
        tensors.to_wire(np.array([0, value], np.float32), "values")
    assert caught.value.reason == "NOT_FINITE"


@pytest.mark.parametrize("array", [np.zeros(1, np.complex64), np.zeros([1] * 9, np.int8)])
def test_what_the_contract_has_no_word_for_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(tectum.InvalidInput, match="values: found"):
        tensors.to_wire(array, "values")


@pytest.mark.parametrize(
    "message",
    [
        tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[2], data=b"1234"),
        tensor_pb2.Tensor(shape=[1], data=b"1"),
        tensor_pb2.Tensor(data_type=99, shape=[1], data=b"1"),  # type: ignore[arg-type]
    ],
)
def test_a_tensor_that_contradicts_itself_is_not_read(message: tensor_pb2.Tensor) -> None:
    with pytest.raises(ValueError, match="a tensor"):
        tensors.from_wire(message)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_pixels_come_back_as_they_went(picture: NDArray[np.uint8]) -> None:
    message = image_pb2.Image()
    images.put_image(message, picture.transpose(1, 0, 2), "image")

    np.testing.assert_array_equal(images.pixels(message.raw), picture.transpose(1, 0, 2))


def test_pixels_that_do_not_fit_their_shape_are_not_read() -> None:
    with pytest.raises(ValueError, match="a 2×2 picture has 3 bytes"):
        images.pixels(image_pb2.RawImage(height=2, width=2, data=b"123"))
