"""Who may fill how much of a queue: examples, then laws."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.server.worker.asking import IMAGE, images, options
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Fronted

from tectum.v1 import errors_pb2
from tectum.v1.embed_pb2 import EmbedImagesRequest
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.memory import Memory
from tectum_server.worker.jobs import Priority
from tectum_server.worker.shares import has_room, share

PLACES = st.integers(1, 1000)
TAKEN, WANTED = st.integers(0, 1000), st.integers(1, 100)
CLASSES = st.sampled_from(list(Priority))


@pytest.mark.parametrize(
    ("places", "shares"), [(256, (256, 224, 192)), (8, (8, 7, 6)), (4, (4, 4, 3)), (3, (3, 3, 3))]
)
def test_control_may_fill_the_queue_and_the_others_leave_it_room(
    places: int, shares: tuple[int, ...]
) -> None:
    assert tuple(share(places, priority) for priority in Priority) == shares


def test_what_is_larger_than_its_share_is_taken_beside_what_its_class_keeps_free() -> None:
    assert has_room(8, taken=0, wanted=8, priority=Priority.BULK)
    assert has_room(8, taken=1, wanted=7, priority=Priority.BULK)
    assert has_room(8, taken=2, wanted=6, priority=Priority.BULK)
    assert not has_room(8, taken=3, wanted=4, priority=Priority.BULK)
    assert not has_room(8, taken=0, wanted=9, priority=Priority.CONTROL)


@given(PLACES, WANTED, CLASSES, st.data())
def test_nobody_is_told_to_come_again_for_ever(
    places: int, wanted: int, priority: Priority, data: st.DataObject
) -> None:
    kept_free = places - share(places, priority)
    others = data.draw(st.integers(0, kept_free))

    admitted = has_room(places, others, wanted, priority)

    assert admitted is (others + wanted <= places)  # alone: if it fits at all
    assert admitted or wanted > share(places, priority)


@given(PLACES, TAKEN, WANTED, CLASSES)
def test_beyond_a_classs_share_one_request_goes_at_a_time(
    places: int, taken: int, wanted: int, priority: Priority
) -> None:
    limit = share(places, priority)
    if has_room(places, taken, wanted, priority) and taken + wanted > limit:
        assert not has_room(places, taken + wanted, 1, priority) or limit == places


@given(PLACES, TAKEN, WANTED, CLASSES)
def test_nobody_is_taken_beyond_the_places(
    places: int, taken: int, wanted: int, priority: Priority
) -> None:
    assert taken + wanted <= places or not has_room(places, taken, wanted, priority)


@given(PLACES, TAKEN, WANTED)
@example(places=8, taken=2, wanted=6)
def test_where_a_class_is_taken_every_higher_one_is(places: int, taken: int, wanted: int) -> None:
    room = [has_room(places, taken, wanted, priority) for priority in Priority]

    assert room == sorted(room, reverse=True)  # CONTROL comes first in Priority


@given(st.integers(4, 1000), st.lists(st.integers(1, 8), min_size=1, max_size=300))
def test_however_much_bulk_comes_control_still_finds_a_place(
    places: int, requests: list[int]
) -> None:
    taken = 0
    for wanted in requests:
        # Alone in the queue it may have all of it; that is not what fills queues.
        if wanted < places // 2 and has_room(places, taken, wanted, Priority.BULK):
            taken += wanted

    assert has_room(places, taken, 1, Priority.CONTROL)


# ---------------------------------------------------------------- at the door


def test_bulk_at_the_door_does_not_shut_control_out(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = fronted(max_queued_items=8)

    def asking(pictures: int, priority: Priority) -> EmbedImagesRequest:
        return images(*[IMAGE] * pictures, options=options(priority=int(priority)))

    bulk = front.client.begin("EmbedImages", asking(6, Priority.BULK))
    assert engine.begun.get(timeout=30).priority == Priority.BULK
    told = front.client.refused("EmbedImages", asking(1, Priority.BULK))
    control = front.client.begin("EmbedImages", asking(2, Priority.CONTROL))
    assert engine.begun.get(timeout=30).priority == Priority.CONTROL
    engine.answers(zeros)

    assert (told.code, told.reason, told.retries) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)
    assert "6 items are waiting, at most 6 may" in told.message
    assert [len(call.result().results) for call in (bulk, control)] == [6, 2]


def test_neither_do_its_pixels() -> None:
    memory = Memory(8)
    bulk, more, control = (
        memory.share(p) for p in (Priority.BULK, Priority.BULK, Priority.CONTROL)
    )
    bulk.take({"images[0]": 3, "images[1]": 3})

    with pytest.raises(Failure) as caught:
        more.take({"images[0]": 1})
    control.take({"images[0]": 2})

    assert caught.value.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
    assert memory.used == 8


def test_what_no_queue_of_this_size_could_take_is_refused_for_good(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    told = fronted(max_queued_items=3).client.refused("EmbedImages", images(*[IMAGE] * 4))

    assert (told.reason, told.retries) == ("TOO_MANY_ITEMS", False)
    assert "4 items, at most 3 are allowed" in told.message
