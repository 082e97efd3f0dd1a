"""The contract's messages in few words, and read without the worker's help."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray
from tests.bundles import png

from tectum.v1 import errors_pb2, image_pb2, tensor_pb2

_T = TypeVar("_T")


def raw(pixels: NDArray[np.uint8]) -> image_pb2.Image:
    """Pixels as they are."""
    height, width, _ = pixels.shape
    return image_pb2.Image(
        raw=image_pb2.RawImage(height=height, width=width, data=pixels.tobytes())
    )


def encoded(pixels: NDArray[np.uint8]) -> image_pb2.Image:
    """Pixels as a PNG file."""
    return image_pb2.Image(encoded=png(pixels))


def seconds(value: float) -> Duration:
    """A duration."""
    return Duration(seconds=int(value), nanos=round((value - int(value)) * 1e9))


_DTYPES: dict[int, Any] = {
    tensor_pb2.DATA_TYPE_FLOAT32: "<f4",
    tensor_pb2.DATA_TYPE_FLOAT16: "<f2",
    tensor_pb2.DATA_TYPE_INT8: "i1",
    tensor_pb2.DATA_TYPE_BOOL: "?",
}


def array(tensor: tensor_pb2.Tensor) -> NDArray[Any]:
    """A tensor as the contract describes it, read without the worker's help."""
    return np.frombuffer(tensor.data, _DTYPES[tensor.data_type]).reshape(tuple(tensor.shape))


def floats(values: NDArray[Any]) -> tensor_pb2.Tensor:
    """A float32 tensor."""
    data = np.asarray(values, "<f4")
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=data.shape, data=data.tobytes()
    )


def pixels_of(image: image_pb2.RawImage) -> NDArray[np.uint8]:
    """A raw image's pixels."""
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def build(kind: type[_T], **values: Any) -> _T:
    """A message from plain values, dicts standing for messages within."""
    return kind(**values)


def reason(number: int) -> str:
    """An ErrorReason's name, as ErrorInfo carries it."""
    return errors_pb2.ErrorReason.Name(cast("errors_pb2.ErrorReason.ValueType", number))[13:]
