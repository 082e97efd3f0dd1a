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

from tectum.v1 import call_pb2, errors_pb2, reconstruct_pb2, tensor_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.texts import checked_text
from tectum_server.worker.front.wire import (
    check_interval,
    checked_data_type,
    embedding,
    read_array,
    read_embedding,
    read_floats,
    read_mask,
    read_seconds,
    read_timestamp,
    tensor,
    vector_name,
)
from tectum_server.worker.jobs import MaskSpec

F32, F16, I8 = (
    tensor_pb2.DATA_TYPE_FLOAT32,
    tensor_pb2.DATA_TYPE_FLOAT16,
    tensor_pb2.DATA_TYPE_INT8,
)
RANGE = errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
MISSING = errors_pb2.ERROR_REASON_FIELD_MISSING
SHAPE = errors_pb2.ERROR_REASON_SHAPE_MISMATCH
NOT_FINITE = errors_pb2.ERROR_REASON_NOT_FINITE
INTERVAL = errors_pb2.ERROR_REASON_INTERVAL_MISMATCH
SPACE = errors_pb2.ERROR_REASON_SPACE_MISMATCH
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


# ---------------------------------------------------------------- vectors

VECTORS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(-1e4, 1e4, width=32),
)


def dequantised(found: call_pb2.Embedding) -> NDArray[np.float32]:
    values = read_array(found.values, "x").astype(np.float32)
    return values * np.float32(found.scale if found.HasField("scale") else 1.0)


@given(VECTORS)
def test_a_vector_in_each_type_lies_within_that_types_bound(vector: NDArray[np.float32]) -> None:
    exact, half, small = (embedding(vector, "s", kind) for kind in (F32, F16, I8))

    assert np.array_equal(dequantised(exact), vector)
    np.testing.assert_allclose(dequantised(half), vector, rtol=2**-11, atol=2**-24)
    assert small.scale > 0
    step = float(np.abs(vector).max()) / 127
    assert np.abs(dequantised(small) - vector).max() <= step / 2 * (1 + 1e-5) + 1e-38
    assert {exact.space_id, half.space_id, small.space_id} == {"s"}
    assert not exact.HasField("scale")
    assert not half.HasField("scale")


def test_a_zero_vector_survives_quantising() -> None:
    found = embedding(np.zeros(4, np.float32), "s", I8)

    assert not dequantised(found).any()


@given(npst.arrays(np.float32, (3, 8), elements=st.floats(-10, 10, width=32)), st.integers(1, 7))
def test_a_truncated_vector_points_where_its_beginning_does(
    vector: NDArray[np.float32], keep: int
) -> None:
    found = dequantised(embedding(vector, "s", F32, keep))

    lengths = np.linalg.norm(vector[:, :keep], axis=-1, keepdims=True)
    assert found.shape == (3, keep)
    np.testing.assert_allclose(found * lengths, vector[:, :keep], atol=1e-5)


@given(
    npst.arrays(np.float32, 8, elements=st.floats(-100, 100, width=32)),
    st.sampled_from([F32, F16, I8]),
)
def test_a_callers_vector_is_read_as_its_direction(vector: NDArray[np.float32], kind: int) -> None:
    assume(np.abs(vector).max() > 1e-3)

    found = read_embedding(embedding(vector, "s", kind), "s", 8, "x")

    assert float(np.linalg.norm(found)) == pytest.approx(1, abs=1e-5)
    assert float(found @ vector) / float(np.linalg.norm(vector)) >= 0.999


@pytest.mark.parametrize(
    ("sent", "reason", "field"),
    [
        (embedding(np.ones(8, np.float32), "other", F32), SPACE, "x.space_id"),
        (embedding(np.ones(7, np.float32), "s", F32), SHAPE, "x.values"),
        (embedding(np.ones((1, 8), np.float32), "s", F32), SHAPE, "x.values"),
        (embedding(np.zeros(8, np.float32), "s", F32), RANGE, "x"),
        (embedding(np.full(8, np.nan, np.float32), "s", F32), NOT_FINITE, "x.values"),
        (
            call_pb2.Embedding(values=tensor(np.ones(8, np.int32)), space_id="s"),
            RANGE,
            "x.values.data_type",
        ),
        (
            call_pb2.Embedding(values=tensor(np.ones(8, np.int8)), space_id="s", scale=math.inf),
            NOT_FINITE,
            "x",
        ),
        (
            call_pb2.Embedding(values=tensor(np.ones(8, np.int8)), space_id="s", scale=0.0),
            RANGE,
            "x",
        ),
        (call_pb2.Embedding(space_id="s"), RANGE, "x.values.data_type"),
    ],
)
def test_a_callers_vector_that_cannot_be_compared_is_refused(
    sent: call_pb2.Embedding, reason: int, field: str
) -> None:
    assert refused(read_embedding, sent, "s", 8, "x") == (reason, field)


@pytest.mark.parametrize(
    ("kind", "spaces", "name"),
    [
        (0, ["joint", "pooled"], "joint"),
        (0, ["pooled", "tokens"], "pooled"),
        (0, ["tokens", "latent_action"], "tokens"),
        (0, ["latent_action"], "pooled"),  # to be refused by its name
        (1, [], "joint"),
        (2, [], "pooled"),
        (3, [], "tokens"),
    ],
)
def test_a_kind_left_open_is_one_that_there_is(kind: Any, spaces: list[str], name: str) -> None:
    assert vector_name(call_pb2.VectorOptions(kind=kind), spaces, "v") == name


def test_a_data_type_left_open_is_float32() -> None:
    assert checked_data_type(0, "t") == F32
    assert [checked_data_type(kind, "t") for kind in (F32, F16, I8)] == [F32, F16, I8]
    assert refused(checked_data_type, tensor_pb2.DATA_TYPE_INT64, "t") == (RANGE, "t")


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
