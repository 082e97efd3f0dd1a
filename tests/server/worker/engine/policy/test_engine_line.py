"""Who waits, in order: against a list that is sorted anew each time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.line import Line, Rank, Waiting

STEPS = st.lists(
    st.tuples(
        st.booleans(),  # whether it comes, or one that waits is removed
        st.sampled_from("ab"),
        st.integers(1, 3),
        st.integers(0, 5),
        st.none() | st.integers(0, 3),
        st.none() | st.integers(0, 5),
    ),
    max_size=40,
)


RANKS = st.tuples(st.integers(1, 3), st.booleans())


@given(STEPS, st.integers(1, 5), st.none() | RANKS, st.integers(0, 6), st.integers(0, 3))
def test_it_is_a_sorted_list(
    steps: list[tuple[bool, str, int, int, int | None, int | None]],
    most: int,
    first: Rank | None,
    now_ms: int,
    forborne_ms: int,
) -> None:
    line, plain = Line(), list[Waiting]()
    for number, (comes, key, priority, due_ms, request, turn_ms) in enumerate(steps):
        one = Waiting(number, key, priority, due_ms, request, turn_ms)
        if comes:
            expected = Counter(other.key for other in plain if other.order < one.order)
            assert line.ahead(one) == expected
            assert {w.item for w in line.before(one)} == {
                w.item for w in plain if w.order < one.order
            }
            line.add(one)
            plain.append(one)
        else:
            gone = plain.pop(number % len(plain)).item if plain else number
            line.remove(gone)
            line.remove(gone)  # it does not wait any more

    assert len(line) == len(plain)
    assert line.keys == Counter(one.key for one in plain)
    assert all(line.keys.values())  # none that nothing waits of
    assert line.calls == sum(one.turn_ms is None for one in plain)
    assert line.ranks == sorted({one.rank for one in plain})
    assert line.classes == sorted({one.priority for one in plain})
    assert line.depth == Counter(one.priority for one in plain)
    assert line.requests == {one.request for one in plain} - {None}
    assert line.due_ms == min((one.deadline_ms for one in plain), default=None)
    late = [
        one.item
        for one in plain
        if one.deadline_ms + (0 if one.turn_ms is None else forborne_ms) <= now_ms
    ]
    assert sorted(line.late(now_ms, forborne_ms)) == sorted(late)
    order = sorted(plain, key=lambda one: (one.rank != first, one.order))
    expected_mates = [one for one in order if one.key == order[0].key][:most]
    assert list(line) == sorted(plain, key=lambda one: one.order)
    assert list(line.of((1, True))) == [one for one in line if one.rank == (1, True)]
    assert all(one.item in line and line.get(one.item) == one for one in plain)
    assert len(steps) not in line
    assert line.get(len(steps)) is None
    assert line.mates(most, () if first is None else (first,)) == expected_mates


def test_calls_go_by_their_deadlines_and_streams_behind_them_by_who_waits_for_longest() -> None:
    line = Line()
    for one in (
        Waiting(1, "a", 1, deadline_ms=5, turn_ms=70),
        Waiting(2, "a", 1, deadline_ms=9, turn_ms=60),
        Waiting(3, "a", 1, deadline_ms=8),
        Waiting(4, "a", 1, deadline_ms=7),
        Waiting(5, "a", 2, deadline_ms=1),
    ):
        line.add(one)

    assert [one.item for one in line.mates(9)] == [4, 3, 2, 1, 5]
    assert [one.item for one in line.mates(9, ((1, True),))] == [2, 1, 4, 3, 5]
