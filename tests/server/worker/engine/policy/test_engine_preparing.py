"""Who is made ready for the engine, in which order, and how many at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.engine.policy.cost import Preparation
from tectum_server.worker.engine.policy.line import Waiting
from tectum_server.worker.engine.policy.preparing import Begun, Preparing

NEEDS = Preparation("resize", 3)
CLASSES = st.sampled_from([1, 2, 3])


def waiting(
    item: int,
    priority: int = 2,
    deadline_ms: int = 100,
    needs: Preparation | None = NEEDS,
    turn_ms: int | None = None,
) -> Waiting:
    return Waiting(item, "a", priority, deadline_ms, turn_ms=turn_ms, preparation=needs)


def ready(preparing: Preparing) -> list[int]:
    """What can run, in order."""
    return [one.item for one in preparing.ready.mates(100)]


def test_what_needs_nothing_can_run_at_once_and_what_does_only_once_it_is_prepared() -> None:
    preparing = Preparing(4)
    preparing.add(waiting(1))
    preparing.add(waiting(2, needs=None))
    assert ready(preparing) == [2]

    begun = preparing.begin()

    assert begun == Begun(1)
    assert ready(preparing) == [2]
    assert preparing.end()
    assert ready(preparing) == [1, 2]
    assert preparing.begin() is None


def test_calls_are_prepared_before_streams_of_their_class_and_the_longest_unanswered_first() -> (
    None
):
    preparing = Preparing(4)
    preparing.add(waiting(1, turn_ms=9, deadline_ms=1))
    preparing.add(waiting(2, turn_ms=8, deadline_ms=2))
    preparing.add(waiting(3, priority=3))
    preparing.add(waiting(4))

    order = list[int]()
    while (begun := preparing.begin()) is not None:
        order.append(begun.item)
        preparing.end()

    assert order == [4, 2, 1, 3]


def test_who_is_owed_something_is_prepared_first() -> None:
    preparing = Preparing(4)
    preparing.add(waiting(1, priority=1))
    preparing.add(waiting(2, priority=3))
    preparing.add(waiting(3, priority=3))

    assert preparing.begin((3,)) == Begun(3)


def test_who_is_owed_something_is_not_given_up_for_who_goes_first_otherwise() -> None:
    preparing = Preparing(1)
    preparing.add(waiting(1, priority=3))
    preparing.begin()
    preparing.end()
    preparing.add(waiting(2, priority=1))

    assert preparing.begin((1,)) is None


def test_what_is_due_at_another_moment_is_so_wherever_it_waits() -> None:
    preparing = Preparing(4)
    for item in range(3):
        preparing.add(waiting(item, turn_ms=item))
    for _ in range(2):
        preparing.begin()
        preparing.end()

    for item, needs in ((0, None), (1, NEEDS), (2, NEEDS)):
        preparing.change(waiting(item, deadline_ms=900, needs=needs, turn_ms=item))

    everybody = [*preparing.ready, *preparing.unready]
    assert [one.item for one in everybody] == [0, 1, 1, 2]
    assert {one.deadline_ms for one in everybody} == {900}


def test_where_enough_is_prepared_the_last_gives_its_place_to_who_goes_before_it() -> None:
    preparing = Preparing(1)
    preparing.add(waiting(1, priority=3))
    preparing.begin()
    preparing.end()
    preparing.add(waiting(2, priority=3))
    assert preparing.begin() is None  # it goes after what is prepared
    preparing.add(waiting(3, priority=1))

    begun = preparing.begin()

    assert begun == Begun(3, dropped=1)
    assert preparing.end()
    assert ready(preparing) == [3]
    preparing.remove(3)
    assert preparing.begin() == Begun(1)


def test_what_has_gone_while_it_was_prepared_is_not_ready() -> None:
    preparing = Preparing(1)
    preparing.add(waiting(1))
    preparing.begin()

    preparing.remove(1)

    assert not preparing.end()
    assert ready(preparing) == []


def test_what_has_other_content_is_prepared_anew_and_may_run_in_the_meantime() -> None:
    preparing = Preparing(1)
    preparing.add(waiting(1))
    preparing.begin()
    preparing.change(waiting(1))  # of which what was begun knows nothing
    assert not preparing.end()
    preparing.begin()
    assert preparing.end()

    preparing.change(waiting(1))

    assert ready(preparing) == [1]
    assert preparing.begin() == Begun(1)
    assert preparing.end()
    assert ready(preparing) == [1]
    assert preparing.begin() is None


def test_what_changes_faster_than_it_is_prepared_runs_all_the_same() -> None:
    preparing = Preparing(1)
    preparing.add(waiting(1))
    preparing.change(waiting(1))
    assert ready(preparing) == []  # its turn has not come yet
    preparing.begin()

    preparing.change(waiting(1))

    assert ready(preparing) == [1]


def test_content_that_needs_nothing_makes_it_ready() -> None:
    preparing = Preparing(1)
    preparing.add(waiting(1))

    preparing.change(waiting(1, needs=None))

    assert ready(preparing) == [1]
    assert preparing.begin() is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["comes", "goes", "changes", "begin", "begin", "end", "run"]),
            CLASSES,
            st.integers(1, 5),
            st.booleans(),
            st.none() | st.integers(1, 5),
        ),
        max_size=40,
    ),
    st.integers(1, 3),
    st.sets(st.integers(0, 40)),
)
def test_whatever_happens_it_is_bounded_in_order_and_nothing_is_lost(
    steps: list[tuple[str, int, int, bool, int | None]], most: int, owed: set[int]
) -> None:
    preparing = Preparing(most)
    there, prepared, under_way = dict[int, Waiting](), set[int](), list[int]()

    def rank(item: int) -> tuple[bool, tuple[int, bool, int, int]]:
        return (item not in owed, there[item].order)

    for number, (what, priority, due_ms, needs, turn_ms) in enumerate(steps):
        some = sorted(there)[due_ms % len(there)] if there else None
        if what == "comes":
            there[number] = waiting(number, priority, due_ms, NEEDS if needs else None, turn_ms)
            preparing.add(there[number])
        elif what == "goes" and some is not None:
            preparing.remove(some)
            prepared.discard(some)
            del there[some]
        elif what == "changes" and some is not None:
            prepared.discard(some)
            old = there[some]
            there[some] = waiting(
                some, old.priority, 3 * due_ms, NEEDS if needs else None, old.turn_ms
            )
            preparing.change(there[some])
            under_way = [-1 for _ in under_way] if under_way == [some] else under_way
        elif what == "begin" and not under_way:
            lacking = {i for i, one in there.items() if one.preparation and i not in prepared}
            begun = preparing.begin(sorted(owed & there.keys(), key=rank))
            if begun is None:  # only where there is nothing, or nothing that goes first
                full = len(prepared) == most
                last = max(map(rank, prepared), default=None)
                assert not lacking or (full and last is not None)
                assert not lacking or last is None or last < min(map(rank, lacking))
                continue
            assert begun.item == min(lacking, key=rank)
            assert (begun.dropped is not None) == (len(prepared) == most)
            if begun.dropped is not None:
                assert begun.dropped == max(prepared, key=rank)
                prepared.discard(begun.dropped)
                assert begun.dropped in preparing.unready
            under_way = [begun.item]
        elif what == "end" and under_way:
            (item,) = under_way
            under_way = []
            assert preparing.end() == (item in there)
            prepared |= {item} & there.keys()
        elif what == "run" and len(preparing.ready):
            item = preparing.ready.mates(1)[0].item
            preparing.remove(item)
            prepared.discard(item)
            del there[item]
        assert len(prepared) <= most
        assert all(item in preparing.ready for item in prepared)
        assert all(there[one.item] == one for one in [*preparing.ready, *preparing.unready])
        lost = there.keys() - {
            i for i in there if i in preparing.ready or i in preparing.unready or [i] == under_way
        }
        assert not lost
        if len(preparing.unready) and not len(preparing.ready) and not under_way:
            assert not prepared  # so that the next one begins at once
