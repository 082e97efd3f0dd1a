"""An engine that is connected and not heard of is away, and back when it beats again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.server.worker.linked import IMAGE, HeldEngine, Rig, failure, job

from tectum.v1 import errors_pb2
from tectum_server.worker.link import served
from tectum_server.worker.link.beating import beat
from tectum_server.worker.link.messages import Beat
from tectum_server.worker.outlook import Outlook, Price, Step

UNAVAILABLE = errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE


class Heart:
    """Beats where a test says so."""

    def __init__(self) -> None:
        self.beats = asyncio.Event()
        self.beats.set()

    async def beat(self, once: Callable[[], None]) -> None:
        """As `beating.beat`, but that it may stop."""

        def unless_stopped() -> None:
            if self.beats.is_set():
                once()

        await beat(unless_stopped)


@pytest.fixture
async def heart(monkeypatch: pytest.MonkeyPatch) -> Heart:
    """The engine's."""
    heart = Heart()
    monkeypatch.setattr(served, "beat", heart.beat)
    return heart


async def test_a_silent_engine_is_away_and_back_by_itself(
    heart: Heart, held: tuple[Rig, HeldEngine]
) -> None:
    rig, engine = held
    before = rig.remote.models
    flying = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    await engine.begun.get()

    heart.beats.clear()
    await rig.connected(False)
    refused = await failure(asyncio.create_task(rig.remote.submit(job(IMAGE))))
    rig.remote.want("arm")
    waits = not flying.done()
    heart.beats.set()
    await rig.connected()
    engine.free.set()

    assert refused.reason == UNAVAILABLE
    assert refused.retry_delay is not None
    assert waits
    assert (await flying).version == "v1"
    assert rig.remote.models == before
    assert (await rig.remote.submit(job(IMAGE))).version == "v1"
    assert engine.asked_back.empty()


async def test_an_answer_is_as_good_as_a_beat(heart: Heart, held: tuple[Rig, HeldEngine]) -> None:
    rig, engine = held
    flying = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    await engine.begun.get()
    heart.beats.clear()
    await rig.connected(False)

    engine.free.set()

    assert (await flying).version == "v1"
    assert rig.remote.models == engine.models


async def test_what_changed_in_a_silence_is_known_after_it(
    heart: Heart, held: tuple[Rig, HeldEngine]
) -> None:
    rig, engine = held
    heart.beats.clear()
    await rig.connected(False)

    engine.tell("leg")
    await rig.connected()

    assert list(rig.remote.models) == ["leg"]


async def test_a_front_that_reads_nothing_is_sent_no_more_beats(
    held: tuple[Rig, HeldEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engine = held
    (listener,) = engine.listeners
    front = listener.__self__  # type: ignore[attr-defined]
    sent = list[object]()
    monkeypatch.setattr(front._channel, "send", sent.append)

    for backs_up in (True, False):
        monkeypatch.setattr(type(front._channel), "backs_up", backs_up)
        front._beat()
        sent.append(backs_up)

    assert sent == [True, Beat(), False]


async def test_a_beat_tells_what_the_engine_has_to_do_to_a_front_that_has_asked_something(
    held: tuple[Rig, HeldEngine],
) -> None:
    rig, engine = held
    price = Price("arm@v1", "embed_images", 1.0, 1.0, 1.0, 4)
    told = Outlook(1.0, price, 0.1, (Step(1, 0.0, 1.0, 1.0, 2, 4, 0.5),), (price,))
    engine.outlook = told
    before = rig.remote.outlooks()
    flying = asyncio.create_task(rig.remote.submit(job(IMAGE)))
    await engine.begun.get()
    while rig.remote.outlooks() != (told,):
        await asyncio.sleep(0.01)

    engine.free.set()
    await flying

    assert before == rig.remote.outlooks() == (None,)
