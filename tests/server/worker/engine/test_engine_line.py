"""Who waits, in order: against a list that is sorted anew each time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.line import Line, Waiting

STEPS = st.lists(
    st.tuples(
        st.booleans(),  # whether it comes, or one that waits is removed
        st.sampled_from("ab"),
        st.integers(1, 3),
        st.integers(0, 5),
        st.none() | st.integers(0, 3),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 5), st.none() | st.integers(1, 3), st.integers(0, 6))
def test_it_is_a_sorted_list(
    steps: list[tuple[bool, str, int, int, int | None]],
    most: int,
    before: int | None,
    now_ms: int,
) -> None:
    line, plain = Line(), list[Waiting]()
    for number, (comes, key, priority, due_ms, request) in enumerate(steps):
        one = Waiting(number, key, priority, due_ms, request)
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
    assert line.classes == sorted({one.priority for one in plain})
    assert line.depth == Counter(one.priority for one in plain)
    assert line.requests == {one.request for one in plain} - {None}
    assert line.due_ms == min((one.deadline_ms for one in plain), default=None)
    assert sorted(line.late(now_ms)) == sorted(o.item for o in plain if o.deadline_ms <= now_ms)
    order = sorted(plain, key=lambda one: (one.priority != before, one.order))
    expected_mates = [one for one in order if one.key == order[0].key][:most]
    assert line.mates(most, before) == expected_mates
    assert [line.first(before), line.last(before)] == (
        [order[0], order[-1]] if order else [None] * 2
    )
    assert all(one.item in line and line.get(one.item) == one for one in plain)
    assert len(steps) not in line
    assert line.get(len(steps)) is None
