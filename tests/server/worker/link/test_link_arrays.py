"""Numpy arrays through shared memory, bit by bit."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from tectum_server.worker.link.arena import Arena
from tectum_server.worker.link.arrays import ArrayRef, pack, unpack
from tectum_server.worker.link.segment import Segment

SIZE = 1 << 20
DTYPES = ("uint8", "int8", "bool", "int32", "int64", "float16", "float32")
ARRAYS = st.lists(
    st.sampled_from(DTYPES).flatmap(
        lambda name: npst.arrays(
            name, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
        )
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    segment = Segment.create(SIZE)
    yield segment
    segment.close()


def equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


@given(ARRAYS)
def test_what_is_packed_is_what_is_unpacked(segment: Segment, arrays: list[NDArray[Any]]) -> None:
    arena = Arena(SIZE)

    packed = pack(arrays, arena, segment)

    assert packed is not None
    span, refs = packed
    assert all(equal(unpack(r, segment), a) for r, a in zip(refs, arrays, strict=True))
    ends = [r.offset + np.dtype(r.dtype).itemsize * int(np.prod(r.shape)) for r in refs]
    assert all(span.offset <= r.offset for r in refs)
    assert all(end <= span.offset + span.size for end in ends)
    arena.release(span.offset)
    assert arena.used == 0


@given(ARRAYS, ARRAYS)
def test_two_messages_do_not_touch(
    segment: Segment, first: list[NDArray[Any]], second: list[NDArray[Any]]
) -> None:
    arena = Arena(SIZE)
    one, two = pack(first, arena, segment), pack(second, arena, segment)
    assert one is not None
    assert two is not None

    found = [unpack(ref, segment) for ref in [*one[1], *two[1]]]

    assert all(equal(f, a) for f, a in zip(found, [*first, *second], strict=True))


def test_an_array_that_occurs_twice_is_written_once(segment: Segment) -> None:
    frame, other = np.arange(640, dtype=np.uint8), np.arange(640, dtype=np.uint8)

    packed = pack([frame, other, frame, frame], Arena(SIZE), segment)

    assert packed is not None
    span, refs = packed
    assert span.size == 2 * 640
    assert refs[0] == refs[2] == refs[3] != refs[1]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(24, dtype=np.float32)[::-3],
        np.arange(6, dtype=">i4"),
        np.broadcast_to(np.float32(1.5), (3, 4)),
    ],
)
def test_any_layout_crosses(segment: Segment, array: NDArray[Any]) -> None:
    packed = pack([array], Arena(SIZE), segment)

    assert packed is not None
    assert np.array_equal(unpack(packed[1][0], segment), array)


def test_where_there_is_no_room_nothing_is_written(segment: Segment) -> None:
    arena = Arena(128)

    assert pack([np.zeros(129, np.uint8)], arena, segment) is None
    assert arena.used == 0


def test_what_is_read_is_a_view_of_the_memory(segment: Segment) -> None:
    packed = pack([np.zeros(4, np.uint8)], Arena(SIZE), segment)
    assert packed is not None
    view = unpack(packed[1][0], segment)

    segment.memory[packed[0].offset] = 7

    assert view[0] == 7


@pytest.mark.parametrize(
    "ref",
    [
        ArrayRef(SIZE - 3, "uint8", (4,)),
        ArrayRef(0, "uint8", (SIZE + 1,)),
        ArrayRef(SIZE - 4, "float32", (2,)),
        ArrayRef(-8, "uint8", (4,)),
        ArrayRef(SIZE + 64, "uint8", (0,)),
        ArrayRef(0, "int64", (2**40, 2**40)),
        ArrayRef(0, "uint8", (2**32, 2**32)),
        ArrayRef(0, "uint8", (-5,)),
        ArrayRef(0, "uint8", (-1, -1)),
        ArrayRef(0, "object", (1,)),
        ArrayRef(0, "float64", (1,)),
        ArrayRef(0, "O", (1,)),
    ],
)
def test_a_reference_to_anywhere_else_is_refused(segment: Segment, ref: ArrayRef) -> None:
    with pytest.raises(ValueError, match="outside its segment|crosses the link"):
        unpack(ref, segment)


def test_a_type_that_does_not_cross_takes_no_room(segment: Segment) -> None:
    arena = Arena(SIZE)

    with pytest.raises(ValueError, match="no array of type 'float64' crosses the link"):
        pack([np.zeros(2)], arena, segment)

    assert arena.used == 0


def test_both_sides_of_a_segment_see_the_same_bytes() -> None:
    ours = Segment.create(4096)
    theirs = Segment.adopt(os.dup(ours.descriptor))

    ours.memory[100:103] = b"abc"

    assert theirs.size == 4096
    assert theirs.memory[100:103] == b"abc"
    theirs.close()
    ours.close()


def test_a_segment_can_be_let_go_while_somebody_still_reads() -> None:
    segment = Segment.create(4096)
    packed = pack([np.arange(5, dtype=np.uint8)], Arena(4096), segment)
    assert packed is not None
    view = unpack(packed[1][0], segment)

    segment.close()

    assert view.tolist() == [0, 1, 2, 3, 4]
