"""Between the contract's vectors and numpy: each type within its bounds, and bad ones by name."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from tectum.v1 import call_pb2, errors_pb2, tensor_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.messages.wire import (
    checked_data_type,
    embedding,
    read_array,
    read_embedding,
    tensor,
    vector_name,
)

F32, F16, I8 = (
    tensor_pb2.DATA_TYPE_FLOAT32,
    tensor_pb2.DATA_TYPE_FLOAT16,
    tensor_pb2.DATA_TYPE_INT8,
)
RANGE = errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE
SHAPE = errors_pb2.ERROR_REASON_SHAPE_MISMATCH
NOT_FINITE = errors_pb2.ERROR_REASON_NOT_FINITE
SPACE = errors_pb2.ERROR_REASON_SPACE_MISMATCH


def refused(read: Any, *given: Any) -> tuple[int, str]:
    with pytest.raises(Failure) as caught:
        read(*given)
    return caught.value.reason, caught.value.field


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


@given(st.floats(65_520, 2.0**100, width=32), st.sampled_from((1, -1)))
def test_a_number_beyond_float16_is_refused_in_it_and_no_infinity(most: float, sign: int) -> None:
    vector = np.array([1, sign * most], np.float32)

    with pytest.raises(Failure, match="ask for FLOAT32") as caught:
        embedding(vector, "s", F16, asked="vector.data_type")

    assert (caught.value.reason, caught.value.field) == (RANGE, "vector.data_type")
    assert np.array_equal(dequantised(embedding(vector, "s", F32)), vector)


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
