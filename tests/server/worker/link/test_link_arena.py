"""Who has which bytes: spans never overlap, and what is given back is whole again."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tectum_server.worker.link.arena import Arena, Span

CAPACITY = 4096
# A size to take, or the place among the taken of one to give back.
STEPS = st.lists(
    st.tuples(st.just("take"), st.integers(0, 1500))
    | st.tuples(st.just("give"), st.integers(0, 99)),
    max_size=60,
)


@given(STEPS)
def test_spans_lie_apart_within_the_capacity_and_all_of_it_comes_back(
    steps: list[tuple[str, int]],
) -> None:
    arena, taken = Arena(CAPACITY), list[Span]()
    for what, number in steps:
        if what == "take":
            span = arena.allocate(number)
            if span is not None:
                assert span.size >= number
                assert span.offset >= 0
                assert span.offset + span.size <= CAPACITY
                assert span.offset % 64 == 0
                assert all(
                    span.offset + span.size <= other.offset
                    or other.offset + other.size <= span.offset
                    for other in taken
                )
                taken.append(span)
        elif taken:
            arena.release(taken.pop(number % len(taken)).offset)
        assert arena.used == sum(span.size for span in taken) <= CAPACITY

    for span in taken:
        arena.release(span.offset)

    assert arena.used == 0
    assert arena.allocate(CAPACITY) == Span(0, CAPACITY)


@given(STEPS)
@example([("take", 1500), ("take", 1500), ("take", 1024), ("take", 0)])
def test_it_says_no_only_if_no_gap_is_wide_enough(steps: list[tuple[str, int]]) -> None:
    arena, taken = Arena(CAPACITY), list[Span]()
    for what, number in steps:
        if what == "give":
            if taken:
                arena.release(taken.pop(number % len(taken)).offset)
            continue
        span = arena.allocate(number)
        if span is not None:
            taken.append(span)
            continue
        edges = sorted((s.offset, s.offset + s.size) for s in taken)
        starts = [0, *(end for _, end in edges)]
        ends = [*(start for start, _ in edges), CAPACITY]
        least = max(number, 1)  # nothing at all has a place of its own
        assert all(end - start < least for start, end in zip(starts, ends, strict=True))


def test_nothing_at_all_still_has_a_place_of_its_own() -> None:
    arena = Arena(CAPACITY)

    first, second = arena.allocate(0), arena.allocate(0)

    assert first is not None
    assert second is not None
    assert first.offset != second.offset


def test_more_than_there_is_is_not_given() -> None:
    assert Arena(CAPACITY).allocate(CAPACITY + 1) is None
    assert Arena(CAPACITY).allocate(CAPACITY) is not None


def test_a_span_comes_back_once() -> None:
    arena = Arena(CAPACITY)
    span = arena.allocate(100)
    assert span is not None
    arena.release(span.offset)

    with pytest.raises(KeyError):
        arena.release(span.offset)
