"""Between the contract's messages and numpy: tensors, vectors, masks, times.

Every reader checks what it reads and names the field that is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from tectum.v1 import call_pb2, errors_pb2, image_pb2, reconstruct_pb2, tensor_pb2
from tectum_server.worker.durations import seconds
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import MaskSpec, VectorName

__all__ = [
    "check_interval",
    "checked_data_type",
    "checked_enum",
    "embedding",
    "out_of_range",
    "raw_image",
    "read_array",
    "read_embedding",
    "read_floats",
    "read_mask",
    "read_offset",
    "read_seconds",
    "read_timestamp",
    "tensor",
    "vector_name",
]

Array = NDArray[Any]

_DTYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_INT8: np.dtype("i1"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("?"),
}
_NUMBERS = {dtype.newbyteorder("="): number for number, dtype in _DTYPES.items()}
_MAX_AXES = 8
_INTERVAL_SLACK = 0.1
"""How far a stated interval may lie from the model's, as a share of it."""
_ROUNDING = 1e-5
"""Of the model's, by which bounds that are told may miss the true ones: %g has six digits."""
_LARGEST_OFFSET = 315_576_000_000.0
"""Seconds: what google.protobuf.Duration can say, about 10,000 years."""
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800
"""What google.protobuf.Timestamp can say, seconds since the epoch."""


def out_of_range(field: str, message: str) -> Failure:
    """A value that the field does not allow."""
    return Failure(errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, message, field)


def checked_enum(value: int, enum: Any, field: str) -> int:
    """The number itself, if the contract has it.

    Raises:
        Failure: FIELD_OUT_OF_RANGE.
    """
    if value not in enum.values():
        raise out_of_range(field, f"{value} is none of {', '.join(enum.keys())}")
    return value


def tensor(array: Array) -> tensor_pb2.Tensor:
    """An array as the contract carries it."""
    number = _NUMBERS[array.dtype.newbyteorder("=")]
    little = np.ascontiguousarray(array, dtype=_DTYPES[number])
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DataType.ValueType(number), shape=array.shape, data=little.tobytes()
    )


def read_array(
    message: tensor_pb2.Tensor, field: str, wanted: tuple[int | None, ...] | None = None
) -> Array:
    """A tensor as an array; floats are checked to be finite. No byte is read of one that misfits.

    Args:
        message: the tensor.
        field: its path in the request.
        wanted: its shape, None standing for any length; None: any shape.

    Raises:
        Failure: unknown type, a shape that does not fit the bytes or is another, NaN or infinity.
    """
    dtype = _DTYPES.get(message.data_type)
    if dtype is None:
        raise out_of_range(f"{field}.data_type", f"{message.data_type} is no tensor type")
    if len(message.shape) > _MAX_AXES:
        raise _misfit(field, f"{len(message.shape)} axes, at most {_MAX_AXES} are allowed")
    shape = tuple(message.shape)
    if wanted is not None and not _fits(shape, wanted):
        told = ", ".join("any" if length is None else str(length) for length in wanted)
        raise _misfit(field, f"shape must be [{told}], found {list(shape)}")
    expected, data = math.prod(shape) * dtype.itemsize, message.data
    if len(data) != expected:
        raise _misfit(field, f"{dtype.name}{list(shape)} needs {expected} bytes, found {len(data)}")
    array = np.frombuffer(data, dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise Failure(errors_pb2.ERROR_REASON_NOT_FINITE, "holds NaN or infinity", field)
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want is None or have == want for have, want in zip(shape, wanted, strict=True)
    )


def read_floats(
    message: tensor_pb2.Tensor, shape: tuple[int | None, ...], field: str
) -> NDArray[np.float32]:
    """A float32 tensor of a given shape; None stands for any length.

    Raises:
        Failure: as read_array, or another type or shape.
    """
    array = read_array(message, field, shape)
    if array.dtype != np.float32:
        raise out_of_range(f"{field}.data_type", f"must be FLOAT32, found {array.dtype.name}")
    return array


def raw_image(pixels: NDArray[np.uint8]) -> image_pb2.RawImage:
    """uint8[H, W, 3] as the contract carries it."""
    height, width, _ = pixels.shape
    return image_pb2.RawImage(height=height, width=width, data=pixels.tobytes())


_VECTORS: dict[int, VectorName] = {
    call_pb2.VECTOR_KIND_JOINT: "joint",
    call_pb2.VECTOR_KIND_POOLED: "pooled",
    call_pb2.VECTOR_KIND_TOKENS: "tokens",
}
"""Those asked for rather stand first."""


def vector_name(options: call_pb2.VectorOptions, spaces: Iterable[str], field: str) -> VectorName:
    """Which of the bundle's vectors is asked for; if the request leaves it open, one there is.

    Raises:
        Failure: a kind that this request cannot ask for.
    """
    kind = checked_enum(options.kind, call_pb2.VectorKind, f"{field}.kind")
    if kind == call_pb2.VECTOR_KIND_UNSPECIFIED:
        there = set(spaces)
        return next((name for name in _VECTORS.values() if name in there), "pooled")
    if kind not in _VECTORS:
        raise out_of_range(f"{field}.kind", "must be JOINT, POOLED or TOKENS")
    return _VECTORS[kind]


def checked_data_type(data_type: int, field: str) -> int:
    """FLOAT32 if absent, else FLOAT32, FLOAT16 or INT8.

    Raises:
        Failure: FIELD_OUT_OF_RANGE.
    """
    if data_type == tensor_pb2.DATA_TYPE_UNSPECIFIED:
        return tensor_pb2.DATA_TYPE_FLOAT32
    allowed = (
        tensor_pb2.DATA_TYPE_FLOAT32,
        tensor_pb2.DATA_TYPE_FLOAT16,
        tensor_pb2.DATA_TYPE_INT8,
    )
    if data_type not in allowed:
        raise out_of_range(field, "vectors come as FLOAT32, FLOAT16 or INT8")
    return data_type


def embedding(
    vector: NDArray[np.float32],
    space_id: str,
    data_type: int,
    dimensions: int = 0,
    asked: str = "data_type",
) -> call_pb2.Embedding:
    """A vector as asked for.

    Args:
        vector: float32[D] or [tokens, D].
        space_id: where it lives.
        data_type: FLOAT32, FLOAT16 or INT8.
        dimensions: keep so many, renormalised; 0: all.
        asked: which field of the request the type was asked for in.

    Raises:
        Failure: FIELD_OUT_OF_RANGE, a number of it is beyond what FLOAT16 holds.
    """
    if dimensions:
        vector = vector[..., :dimensions]
        vector = vector / np.linalg.norm(vector, axis=-1, keepdims=True).clip(1e-12)
    if data_type == tensor_pb2.DATA_TYPE_INT8:
        scale = float(np.abs(vector).max()) / 127 or 1.0
        quantised = np.rint(vector / scale).astype(np.int8)
        return call_pb2.Embedding(values=tensor(quantised), space_id=space_id, scale=scale)
    if data_type == tensor_pb2.DATA_TYPE_FLOAT16:
        with np.errstate(over="ignore"):
            vector = vector.astype(np.float16)
        if not np.isfinite(vector).all():
            most = int(np.finfo(np.float16).max)
            why = (
                f"FLOAT16 holds numbers up to {most}, the answer has a larger one; ask for FLOAT32"
            )
            raise out_of_range(asked, why)
    return call_pb2.Embedding(values=tensor(vector), space_id=space_id)


def read_embedding(
    message: call_pb2.Embedding, space_id: str, width: int, field: str
) -> NDArray[np.float32]:
    """A caller's vector, float32[D], of unit length.

    Raises:
        Failure: another space or shape, a type that is no vector's, or of no finite length above 0.
    """
    if message.space_id != space_id:
        raise Failure(
            errors_pb2.ERROR_REASON_SPACE_MISMATCH,
            f"the vector is of space {message.space_id[:40]!r}, the model's is {space_id!r}",
            f"{field}.space_id",
        )
    values = read_array(message.values, f"{field}.values", (width,))
    checked_data_type(message.values.data_type, f"{field}.values.data_type")
    scale = message.scale if message.HasField("scale") else 1.0
    vector = values.astype(np.float32) * np.float32(scale)
    norm = float(np.linalg.norm(vector))
    if not math.isfinite(norm):
        why = "the vector's length is not finite"
        raise Failure(errors_pb2.ERROR_REASON_NOT_FINITE, why, field)
    if norm == 0:
        raise out_of_range(field, "a vector of length zero has no direction")
    return vector / np.float32(norm)


_MASK_KINDS: dict[int, Literal["random", "block", "importance", "tube", "explicit"]] = {
    reconstruct_pb2.MASK_KIND_RANDOM: "random",
    reconstruct_pb2.MASK_KIND_BLOCK: "block",
    reconstruct_pb2.MASK_KIND_IMPORTANCE: "importance",
    reconstruct_pb2.MASK_KIND_TUBE: "tube",
    reconstruct_pb2.MASK_KIND_EXPLICIT: "explicit",
}
_SOURCES: dict[int, Literal["attention", "change"]] = {
    reconstruct_pb2.IMPORTANCE_SOURCE_UNSPECIFIED: "attention",
    reconstruct_pb2.IMPORTANCE_SOURCE_ATTENTION: "attention",
    reconstruct_pb2.IMPORTANCE_SOURCE_CHANGE: "change",
}


def read_mask(mask: reconstruct_pb2.Mask, elements: int) -> MaskSpec:
    """A request's mask, its fields checked against each other.

    Args:
        mask: the request's.
        elements: how many the target has at most; which of them may be hidden, the engine knows.

    Raises:
        Failure: FIELD_OUT_OF_RANGE or FIELD_MISSING.
    """
    kind = checked_enum(mask.kind, reconstruct_pb2.MaskKind, "mask.kind")
    if kind == reconstruct_pb2.MASK_KIND_UNSPECIFIED:
        kind = (
            reconstruct_pb2.MASK_KIND_EXPLICIT if mask.hidden else reconstruct_pb2.MASK_KIND_RANDOM
        )
    explicit = kind == reconstruct_pb2.MASK_KIND_EXPLICIT
    if explicit and not mask.hidden:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            "an EXPLICIT mask lists what it hides",
            "mask.hidden",
        )
    if mask.hidden and not explicit:
        raise out_of_range("mask.hidden", "only an EXPLICIT mask lists what it hides")
    if len(mask.hidden) >= elements:
        raise out_of_range(
            "mask.hidden",
            f"1 to {elements - 1} of at most {elements} elements can be hidden, "
            f"found {len(mask.hidden)}",
        )
    ratio = mask.ratio if mask.HasField("ratio") else None
    if ratio is not None and explicit:
        raise out_of_range("mask.ratio", "an EXPLICIT mask has no ratio")
    if ratio is not None and not 0 < ratio < 1:
        raise out_of_range("mask.ratio", f"must lie between 0 and 1, found {ratio}")
    source = checked_enum(mask.source, reconstruct_pb2.ImportanceSource, "mask.source")
    if kind != reconstruct_pb2.MASK_KIND_IMPORTANCE:
        if source:
            raise out_of_range("mask.source", "only an IMPORTANCE mask goes by a source")
        if mask.HasField("hint"):
            raise out_of_range("mask.hint", "only an IMPORTANCE mask gives hints")
    if not 0 <= mask.hint <= 1:
        raise out_of_range("mask.hint", f"must lie from 0 to 1, found {mask.hint}")
    return MaskSpec(
        kind=_MASK_KINDS[kind],
        ratio=ratio,
        seed=mask.seed,
        hidden=tuple(mask.hidden),
        source=_SOURCES[source],
        hint=mask.hint,
    )


def read_seconds(message: Duration, field: str, *, at_most: float = 3600.0) -> float:
    """A duration above zero.

    Raises:
        Failure: FIELD_OUT_OF_RANGE.
    """
    found = seconds(message)
    if not 0 < found <= at_most:
        raise out_of_range(field, f"must be above 0 and at most {at_most:g} s, found {found:g} s")
    return found


def read_offset(message: Duration, field: str) -> float:
    """Seconds between two clocks, either way.

    Raises:
        Failure: FIELD_OUT_OF_RANGE, it is no sound Duration, or more than 10,000 years.
    """
    found = seconds(message)
    sound = abs(message.nanos) < 10**9 and message.seconds * message.nanos >= 0
    if not sound or abs(found) > _LARGEST_OFFSET:
        raise out_of_range(
            field,
            f"is at most {_LARGEST_OFFSET:g} s either way, of one sign, with less than 10^9 "
            f"nanoseconds; found {message.seconds} s and {message.nanos} ns",
        )
    return found


def check_interval(sent: Duration, wanted: Duration, steps: str, field: str) -> None:
    """Let pass a stated interval that is about the model's.

    Args:
        sent: the caller's.
        wanted: the model's.
        steps: what lies so far apart, for the message.
        field: the caller's.

    Raises:
        Failure: FIELD_OUT_OF_RANGE, or INTERVAL_MISMATCH beyond a tenth of the model's.
    """
    found, interval = read_seconds(sent, field), seconds(wanted)
    if abs(found - interval) > (_INTERVAL_SLACK + _ROUNDING) * interval:
        least, most = (1 - _INTERVAL_SLACK) * interval, (1 + _INTERVAL_SLACK) * interval
        raise Failure(
            errors_pb2.ERROR_REASON_INTERVAL_MISMATCH,
            f"the model's {steps} are {interval:g} s apart, {least:g} to {most:g} s are allowed; "
            f"found {found:g} s",
            field,
        )


def read_timestamp(message: Timestamp, field: str) -> float:
    """Seconds since the epoch of the caller's clock.

    Raises:
        Failure: FIELD_OUT_OF_RANGE, it lies outside the years 1 to 9999.
    """
    if not _YEAR_1 <= message.seconds < _YEAR_10000 or not 0 <= message.nanos < 10**9:
        raise out_of_range(
            field,
            f"lies in the years 1 to 9999, with 0 to 999999999 nanoseconds; "
            f"found {message.seconds} s and {message.nanos} ns",
        )
    return seconds(message)


def _misfit(field: str, message: str) -> Failure:
    return Failure(errors_pb2.ERROR_REASON_SHAPE_MISMATCH, message, field)
