"""Between the contract's messages and numpy: every type and shape, and bad ones by name."""

import math
import re
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, reconstruct_pb2, tensor_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.messages.wire import (
    check_interval,
    read_array,
    read_floats,
    read_mask,
    read_seconds,
    read_timestamp,
    tensor,
)
from tectum_server.worker.front.methods.texts import checked_text
from tectum_server.worker.jobs import MaskSpec

F32 = tensor_pb2.DATA_TYPE_FLOAT32
RANGE = errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
MISSING = errors_pb2.ERROR_REASON_FIELD_MISSING
SHAPE = errors_pb2.ERROR_REASON_SHAPE_MISMATCH
NOT_FINITE = errors_pb2.ERROR_REASON_NOT_FINITE
INTERVAL = errors_pb2.ERROR_REASON_INTERVAL_MISMATCH
TYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")
SHAPES = npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)


def arrays(name: str, shape: Any = SHAPES) -> Any:
    elements: dict[str, Any] = {}
    if name.startswith("float"):
        elements = {"allow_nan": False, "allow_infinity": False}
    return npst.arrays(name, shape, elements=elements or None)


def refused(read: Any, *given: Any) -> tuple[int, str]:
    with pytest.raises(Failure) as caught:
        read(*given)
    return caught.value.reason, caught.value.field


# ---------------------------------------------------------------- tensors


@given(st.sampled_from(TYPES).flatmap(arrays))
def test_an_array_survives_the_wire(array: NDArray[Any]) -> None:
    sent = tensor_pb2.Tensor.FromString(tensor(array).SerializeToString())

    found = read_array(sent, "x")

    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


def test_bytes_on_the_wire_are_little_endian_whatever_they_were() -> None:
    for order in "<>=":
        sent = tensor(np.array([1.5, -2.0], np.dtype(f"{order}f4")))
        assert sent.data == struct.pack("<2f", 1.5, -2.0)
        assert (sent.data_type, list(sent.shape)) == (F32, [2])


def test_a_view_is_sent_as_it_looks() -> None:
    view = np.arange(12, dtype=np.int32).reshape(3, 4).T[::2]

    assert np.array_equal(read_array(tensor(view), "x"), view)


@given(st.sampled_from(TYPES).flatmap(arrays), st.integers(-9, 9).filter(bool))
def test_bytes_that_do_not_fit_the_shape_are_refused(array: NDArray[Any], more: int) -> None:
    message = tensor(array)
    message.data = message.data + b"\0" * more if more > 0 else message.data[:more]
    assume(len(message.data) != array.nbytes)  # from nothing, nothing can be taken away

    assert refused(read_array, message, "x") == (SHAPE, "x")


@pytest.mark.parametrize("data_type", [0, 8, 99])
def test_an_unknown_type_is_refused(data_type: Any) -> None:
    message = tensor_pb2.Tensor(data_type=data_type, shape=[1], data=b"\0")

    assert refused(read_array, message, "x") == (RANGE, "x.data_type")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["float32", "float16"])
def test_floats_must_be_finite(name: str, bad: float) -> None:
    array = np.zeros((2, 3), name)
    array[1, 2] = bad

    assert refused(read_array, tensor(array), "x") == (NOT_FINITE, "x")


def test_eight_axes_are_enough() -> None:
    assert read_array(tensor(np.zeros((1,) * 8, np.int8)), "x").ndim == 8
    assert refused(read_array, tensor(np.zeros((1,) * 9, np.int8)), "x") == (SHAPE, "x")


def test_a_shape_that_overflows_is_refused_without_room_for_it() -> None:
    message = tensor_pb2.Tensor(data_type=F32, shape=[2**32 - 1] * 3, data=b"")

    assert refused(read_array, message, "x") == (SHAPE, "x")


def test_floats_have_the_type_and_shape_that_is_asked_for() -> None:
    sent = tensor(np.zeros((3, 4), np.float32))

    assert read_floats(sent, (None, 4), "x").shape == (3, 4)
    assert refused(read_floats, sent, (None, 5), "x") == (SHAPE, "x")
    assert refused(read_floats, sent, (3, 4, 1), "x") == (SHAPE, "x")
    assert refused(read_floats, tensor(np.zeros((3, 4), np.int32)), (None, 4), "x") == (
        RANGE,
        "x.data_type",
    )


# ---------------------------------------------------------------- masks


def mask(**values: Any) -> reconstruct_pb2.Mask:
    return reconstruct_pb2.Mask(**values)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (mask(), MaskSpec("random")),
        (mask(hidden=[2, 5]), MaskSpec("explicit", hidden=(2, 5))),
        (mask(kind=5, hidden=[0]), MaskSpec("explicit", hidden=(0,))),
        (mask(kind=1, ratio=0.25, seed=2**64 - 1), MaskSpec("random", 0.25, 2**64 - 1)),
        (mask(kind=2, ratio=0.5), MaskSpec("block", 0.5)),
        (mask(kind=3), MaskSpec("importance")),
        (mask(kind=3, source=1, hint=0), MaskSpec("importance")),
        (mask(kind=3, source=2, hint=0.25), MaskSpec("importance", source="change", hint=0.25)),
        (mask(kind=4, seed=3), MaskSpec("tube", None, 3)),
    ],
)
def test_a_mask_is_read_with_its_defaults(sent: reconstruct_pb2.Mask, wanted: MaskSpec) -> None:
    assert read_mask(sent, 4) == wanted


@pytest.mark.parametrize(
    ("sent", "reason", "field"),
    [
        (mask(kind=5), MISSING, "mask.hidden"),
        (mask(kind=1, hidden=[1]), RANGE, "mask.hidden"),
        (mask(kind=4, hidden=[1]), RANGE, "mask.hidden"),
        (mask(kind=5, hidden=[1], ratio=0.5), RANGE, "mask.ratio"),
        (mask(hidden=[1], ratio=0.5), RANGE, "mask.ratio"),
        (mask(ratio=0.0), RANGE, "mask.ratio"),
        (mask(ratio=1.0), RANGE, "mask.ratio"),
        (mask(ratio=-0.1), RANGE, "mask.ratio"),
        (mask(ratio=math.nan), RANGE, "mask.ratio"),
        (mask(ratio=math.inf), RANGE, "mask.ratio"),
        (mask(kind=17), RANGE, "mask.kind"),
        (mask(kind=3, source=17), RANGE, "mask.source"),
        (mask(source=2), RANGE, "mask.source"),
        (mask(kind=4, source=1), RANGE, "mask.source"),
        (mask(kind=2, hint=0), RANGE, "mask.hint"),
        (mask(kind=3, hint=-0.1), RANGE, "mask.hint"),
        (mask(kind=3, hint=1.1), RANGE, "mask.hint"),
        (mask(kind=3, hint=math.nan), RANGE, "mask.hint"),
    ],
)
def test_a_mask_whose_fields_contradict_each_other_is_refused(
    sent: reconstruct_pb2.Mask, reason: int, field: str
) -> None:
    assert refused(read_mask, sent, 4) == (reason, field)


def test_a_mask_lists_fewer_than_there_are() -> None:
    assert read_mask(mask(hidden=[1, 2]), 3).hidden == (1, 2)

    with pytest.raises(
        Failure, match="1 to 2 of at most 3 elements can be hidden, found 3"
    ) as caught:
        read_mask(mask(hidden=[0, 1, 2]), 3)
    assert (caught.value.reason, caught.value.field) == (RANGE, "mask.hidden")


# ---------------------------------------------------------------- times and texts


@given(st.integers(1, 3600 * 10**9))
def test_a_duration_is_read_in_seconds(nanoseconds: int) -> None:
    sent = Duration()
    sent.FromNanoseconds(nanoseconds)

    assert read_seconds(sent, "d") == pytest.approx(nanoseconds / 1e9, rel=1e-12)


@pytest.mark.parametrize("nanoseconds", [0, -1, -(10**9), 3600 * 10**9 + 1])
def test_a_duration_beyond_its_bounds_is_refused(nanoseconds: int) -> None:
    sent = Duration()
    sent.FromNanoseconds(nanoseconds)

    assert refused(read_seconds, sent, "d") == (RANGE, "d")


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (Timestamp(seconds=5, nanos=250_000_000), 5.25),
        (Timestamp(seconds=-62_135_596_800), -62_135_596_800.0),
        (Timestamp(seconds=253_402_300_799), 253_402_300_799.0),
    ],
)
def test_a_timestamp_is_read_in_seconds(sent: Timestamp, wanted: float) -> None:
    assert read_timestamp(sent, "t") == wanted


@pytest.mark.parametrize(
    "sent",
    [
        Timestamp(seconds=-(2**63)),
        Timestamp(seconds=-62_135_596_801),
        Timestamp(seconds=253_402_300_800),
        Timestamp(seconds=2**63 - 1),
        Timestamp(seconds=5, nanos=-1),
        Timestamp(seconds=5, nanos=10**9),
    ],
)
def test_a_moment_that_no_timestamp_can_tell_is_refused(sent: Timestamp) -> None:
    assert refused(read_timestamp, sent, "t") == (RANGE, "t")


@pytest.mark.parametrize(
    ("found", "reason"),
    [(0.1, None), (0.09, None), (0.11, None), (0.1101, INTERVAL), (0.05, INTERVAL), (0.0, RANGE)],
)
def test_a_stated_interval_is_within_a_tenth_of_the_models(
    found: float, reason: int | None
) -> None:
    given = (duration(found), duration(0.1), "frames", "i")

    if reason is None:
        check_interval(*given)
    else:
        assert refused(check_interval, *given) == (reason, "i")


@given(st.floats(1e-3, 10.0))
def test_what_is_told_to_be_allowed_of_an_interval_is(interval: float) -> None:
    with pytest.raises(Failure, match=r"(\S+) to (\S+) s are allowed; found") as caught:
        check_interval(duration(2 * interval), duration(interval), "frames", "i")

    found = re.search(r"(\S+) to (\S+) s are allowed", caught.value.message)
    assert found is not None
    for bound in found.groups():
        check_interval(duration(float(bound)), duration(interval), "frames", "i")


@given(st.text(max_size=40), st.integers(1, 60))
def test_a_text_is_let_through_unchanged_or_refused(text: str, longest: int) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    sound = text.strip() and size <= longest and "\0" not in text

    if sound:
        assert checked_text(text, longest, "t") == text
    else:
        reason, field = refused(checked_text, text, longest, "t")
        assert reason in (MISSING, RANGE)
        assert field == "t"
