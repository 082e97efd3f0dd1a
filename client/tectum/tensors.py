"""Dense arrays: numpy in Python, `Tensor` on the wire.

The wire is little-endian and C order whatever the host is. This module knows element types and
shapes; what an array means is its caller's business.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tectum.errors import invalid
from tectum.v1 import tensor_pb2

MAX_AXES = 8
"""Axes a tensor may have (Tensor.shape)."""
_LONGEST_AXIS = 2**32 - 1

WIRE_DTYPES: Mapping[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_INT8: np.dtype("i1"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("?"),
}
"""How each of the contract's element types lies in bytes; total but for UNSPECIFIED."""

_NUMBERS: Mapping[np.dtype[Any], int] = {
    dtype.newbyteorder("="): number for number, dtype in WIRE_DTYPES.items()
}


def to_wire(array: NDArray[Any], field: str) -> tensor_pb2.Tensor:
    """Pack an array.

    Args:
        array: Any shape, byte order and memory layout; element type one of `WIRE_DTYPES`.
        field: Where it stands in the request, for the error.

    Raises:
        InvalidInput: another element type, too many axes, or a number that is not finite.
    """
    number = _NUMBERS.get(array.dtype.newbyteorder("="))
    if number is None:
        names = ", ".join(str(dtype) for dtype in _NUMBERS)
        raise invalid(field, f"found {array.dtype}; allowed: {names}", reason="SHAPE_MISMATCH")
    if array.ndim > MAX_AXES or max(array.shape, default=0) > _LONGEST_AXIS:
        raise invalid(
            field,
            f"found shape {list(array.shape)}; allowed: at most {MAX_AXES} axes, each below 2**32",
            reason="SHAPE_MISMATCH",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(field, "found NaN or infinity; allowed: finite numbers", reason="NOT_FINITE")
    data = array.astype(WIRE_DTYPES[number], copy=False).tobytes()
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DataType.ValueType(number),
        shape=array.shape,
        data=data,
    )


def from_wire(tensor: tensor_pb2.Tensor) -> NDArray[Any]:
    """Unpack an array: a read-only view of the message's bytes where the host allows it.

    Raises:
        ValueError: an element type this SDK has not learnt, or bytes that do not fit the shape.
    """
    dtype = WIRE_DTYPES.get(tensor.data_type)
    if dtype is None:
        raise ValueError(f"a tensor has data type {tensor.data_type}, which is unknown here")
    shape = tuple(tensor.shape)
    if math.prod(shape) * dtype.itemsize != len(tensor.data):
        raise ValueError(f"a tensor of {dtype}{list(shape)} has {len(tensor.data)} bytes")
    array = np.frombuffer(tensor.data, dtype=dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)
