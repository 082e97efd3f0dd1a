"""What cannot be in time is refused before it is decoded, and never what might be."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.server.worker.asking import IMAGE, clips, fill, images, pairs, rollout, similar
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import Fronted

from tectum.v1 import call_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.bookings import Bookings
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.catalogue import ServedModel
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.memory import Memory
from tectum_server.worker.front.messages.parts import Parts
from tectum_server.worker.jobs import ModelEntry, Priority
from tectum_server.worker.outlook import Outlook, Price, Step


def outlook(
    engine: ScriptedEngine, seconds: float, age: float = 0.0, operation: str = "embed_images"
) -> Outlook:
    """So much before every call, told so long ago; an item takes a second."""
    entry = engine.models["full"]
    price = Price(f"{entry.name}@{entry.version}", operation, 0.0, 1.0, 1.0, 1)
    steps = tuple(Step(priority, 0.0, seconds, 0.0, 0, 1, 1.0) for priority in (1, 2, 3))
    return Outlook(time.monotonic() - age, price, 0.0, steps, (price,))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was looked at."""
    seen: list[object] = []
    opened = ImageReader._open_all

    def look(reader: ImageReader, given: Any, parts: Parts) -> object:
        seen.append(given)
        return opened(reader, given, parts)

    monkeypatch.setattr(ImageReader, "_open_all", look)
    return seen


def test_a_call_that_comes_too_late_is_refused_before_it_is_decoded(
    front: Fronted, engine: ScriptedEngine, decoded: list[object]
) -> None:
    engine.outlook = outlook(engine, seconds=100.0)

    told = front.client.refused("EmbedImages", images(), timeout=30)

    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "DEADLINE_UNREACHABLE")
    assert told.retries
    assert "with what waits now it takes about" in told.message
    assert decoded == []
    assert engine.begun.empty()
    refused = front.metric("tectum_requests_refused_total", reason="deadline_unreachable")
    assert refused == 1


@pytest.mark.parametrize(
    ("rpc", "request_of", "operation"),
    [
        ("EmbedClips", clips, "embed_clips"),
        ("ComputeSimilarity", lambda: similar([{"image": IMAGE}], [{"text": "a"}]), "embed_images"),
        ("PredictLatentActions", pairs, "latent_actions"),
        ("Rollout", rollout, "embed_images"),
        ("Reconstruct", lambda: fill(image=IMAGE), "fill_images"),
    ],
)
def test_so_is_whatever_else_has_pictures(
    front: Fronted,
    engine: ScriptedEngine,
    decoded: list[object],
    rpc: str,
    request_of: Callable[[], Any],
    operation: str,
) -> None:
    engine.outlook = outlook(engine, seconds=100.0, operation=operation)

    told = front.client.refused(rpc, request_of(), timeout=30)

    assert told.reason == "DEADLINE_UNREACHABLE"
    assert decoded == []


def test_who_might_be_in_time_and_whoever_comes_to_an_engine_that_says_nothing_is_let_through(
    front: Fronted, engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    for one in (
        None,
        outlook(engine, seconds=10.0),
        outlook(engine, seconds=100.0, age=1.0),
    ):
        engine.outlook = one
        assert len(front.client.ask("EmbedImages", images(), timeout=30).results) == 1


def test_the_engine_hears_of_control_that_was_refused_before_it_and_not_of_others(
    front: Fronted, engine: ScriptedEngine
) -> None:
    engine.outlook = outlook(engine, seconds=100.0)

    bulk = call_pb2.RequestOptions(priority=call_pb2.PRIORITY_BULK)
    control = call_pb2.RequestOptions(priority=call_pb2.PRIORITY_CONTROL)

    front.client.refused("EmbedImages", images(options=bulk), timeout=30)
    assert engine.control_expected == 0
    for _ in range(3):
        told = front.client.refused("EmbedImages", images(options=control), timeout=30)
        assert told.reason == "DEADLINE_UNREACHABLE"

    assert engine.control_expected >= 1
    assert engine.begun.empty()


def a_call(deadline: float) -> Call:
    """A call of BULK that came at 10 s."""
    served = SimpleNamespace(entry=ModelEntry("full", "1", "ready", True, b""))
    share = Memory(1).share()
    return Call("r", cast("ServedModel", served), Priority.BULK, deadline, 10.0, share)


def told(free: float) -> list[Outlook | None]:
    """One engine that told at 10 s of so many seconds before every call of BULK."""
    price = Price("full@1", "embed_images", 0.0, 1.0, 1.0, 1)
    return [Outlook(10.0, price, 0.0, (Step(Priority.BULK, 0.0, free, 0.0, 0, 1, 1.0),), (price,))]


def test_who_may_come_again_is_told_when() -> None:
    bookings = Bookings(8)

    with pytest.raises(Failure) as refused:
        bookings.book(1, a_call(12.0), {"embed_images": 1}, told(1.25), 10.0).__enter__()

    assert refused.value.retry_delay == 0.25
    assert str(refused.value) == (
        "the deadline is 2000 ms away; with what waits now it takes about 2250 ms"
    )
    assert bookings.items == 0


def test_what_is_being_decoded_counts_until_the_engine_tells_of_it_or_it_is_answered() -> None:
    bookings, first = Bookings(8), a_call(12.0)

    def refused() -> bool:
        try:
            with bookings.book(1, a_call(12.0), {"embed_images": 1}, told(0.5), 10.0):
                return False
        except Failure:
            return True

    with bookings.book(1, first, {"embed_images": 1}, told(0.5), 10.0):
        while_decoded = refused()
        first.sent = 9.9
        heard = refused()
        first.sent = 10.1
        after = refused()

    assert (while_decoded, heard, after, refused()) == (True, False, True, False)
