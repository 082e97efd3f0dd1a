"""Threads take what is most urgent first, and nothing that was cancelled."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import picture
from tests.server.worker.asking import IMAGE, LIAR, clip_of, clips, images, options, pairs
from tests.server.worker.frames import OK, frame
from tests.server.worker.messages import encoded, raw
from tests.server.worker.scripted import ScriptedEngine, zeros
from tests.server.worker.serving import PATIENCE, Camera, Fronted, until

from tectum.v1 import stream_pb2
from tectum_core.image import decode
from tectum_server.worker.front import images as reading
from tectum_server.worker.front.decoding import UrgentFirst
from tectum_server.worker.jobs import Priority

CONTROL, BULK = Priority.CONTROL, Priority.BULK


class Held:
    """A pool of one thread that waits to be let go."""

    def __init__(self) -> None:
        self.pool = UrgentFirst(1, "test")
        self.let_go = threading.Event()
        self.done: list[Any] = []
        self.busy = self.pool.submit(self.let_go.wait, CONTROL, 0.0)
        until(self.busy.running)

    def submit(self, name: Any, priority: int = BULK, deadline: float = 0.0) -> Future[None]:
        """Something that only notes that it was done."""
        return self.pool.submit(lambda: self.done.append(name), priority, deadline)

    def finish(self) -> list[Any]:
        """Let go, and see what was done in which order once nothing waits."""
        last = self.pool.submit(lambda: None, BULK, float("inf"))
        self.let_go.set()
        last.result(PATIENCE)
        return self.done


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.let_go.set()
    held.pool.close()


@given(st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 3)), max_size=12))
def test_work_is_done_by_priority_then_deadline_then_arrival(
    sent: list[tuple[Priority, int]],
) -> None:
    held = Held()
    for number, (priority, deadline) in enumerate(sent):
        held.submit((priority, deadline, number), priority, deadline)

    done = held.finish()
    held.pool.close()

    assert len(done) == len(sent)
    assert done == sorted(done)


def test_cancelled_work_is_not_done_and_not_held(held: Held) -> None:
    large = threading.Event()  # anything that can be referred to weakly
    seen = weakref.ref(large)
    cancelled = held.pool.submit(large.wait, BULK, 0.0)
    held.submit("kept")
    del large
    assert len(held.pool) == 2

    assert cancelled.cancel()

    assert len(held.pool) == 1
    gc.collect()
    assert seen() is None
    assert held.finish() == ["kept"]


def test_what_fails_fails_alone(held: Held) -> None:
    broken = held.pool.submit(lambda: 1 // 0, BULK, 0.0)
    held.submit("sound")

    assert held.finish() == ["sound"]
    with pytest.raises(ZeroDivisionError):
        broken.result(PATIENCE)


def test_a_closed_pool_finishes_what_runs_and_does_no_more(held: Held) -> None:
    waiting = held.submit("waiting")
    closing = threading.Thread(target=held.pool.close)
    closing.start()
    until(waiting.cancelled)

    held.let_go.set()
    closing.join(PATIENCE)

    assert held.busy.result(PATIENCE)
    assert held.done == []
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE)
    with pytest.raises(RuntimeError, match="closed"):
        held.submit("late")


# ---------------------------------------------------------------- in the front

FILE = encoded(picture())


def busy(front: Fronted) -> threading.Event:
    """Keep all of a front's threads busy until the event is set."""
    let_go, pool = threading.Event(), front.front._images._pool
    running = [pool.submit(let_go.wait, CONTROL, 0.0) for _ in pool._threads]
    until(lambda: all(one.running() for one in running))
    return let_go


def test_control_passes_what_waits_to_be_decoded(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    front = fronted(decode_threads=1)
    let_go, pool = busy(front), front.front._images._pool
    bulk = [
        front.client.begin("EmbedImages", images(FILE, options=options(priority=BULK)))
        for _ in range(3)
    ]
    until(lambda: len(pool) == 3)
    control = front.client.begin(
        "EmbedImages", images(FILE, FILE, options=options(priority=CONTROL))
    )
    until(lambda: len(pool) == 4)

    let_go.set()

    assert all(call.result().results for call in (control, *bulk))
    jobs = [engine.begun.get(timeout=30) for _ in range(4)]
    assert jobs[0].priority == CONTROL


def test_a_caller_who_left_leaves_nothing_to_decode(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    front = fronted()
    let_go, pool = busy(front), front.front._images._pool
    gone = front.client.begin("EmbedImages", images(FILE))
    until(lambda: len(pool) == 1)

    gone.cancel()

    until(lambda: len(pool) == 0)
    until(lambda: front.front._calls.memory.used == 0)
    let_go.set()
    assert front.metric("tectum_decode_duration_seconds_count") == 0


def test_what_is_read_at_once_counts_once_in_a_calls_time(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answers(zeros)
    seconds, both = iter(range(100)), threading.Barrier(2)

    def decoding_both(*args: Any, **options: Any) -> Any:
        both.wait(PATIENCE)
        return decode(*args, **options)

    monkeypatch.setattr(reading, "decode", decoding_both)
    monkeypatch.setattr(reading, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))

    told = fronted(decode_threads=2).client.ask("EmbedImages", images(FILE, FILE)).info.timings

    # One begins at 0 s and one at 1 s; they end at 2 and at 3.
    assert told.decode.ToSeconds() == 3


def test_raw_pictures_need_no_thread(
    fronted: Callable[..., Fronted], engine: ScriptedEngine
) -> None:
    engine.answers(zeros)
    front = fronted()
    front.front._images.close()

    assert front.client.ask("EmbedImages", images(IMAGE, LIAR)).results[0].HasField("embedding")
    assert front.client.ask("EmbedClips", clips()).results
    assert front.client.ask("PredictLatentActions", pairs()).results
    stream = Camera(front.client, stream_pb2.StreamSetup(embed=True))
    stream.ready()
    stream.send(frame(1))
    assert stream.result().status == OK
    stream.finish()


def test_large_raw_pictures_are_copied_beside_the_event_loop(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_AT_ONCE", 2 * len(IMAGE.raw.data) - 1)
    engine.answers(zeros)
    front = fronted()
    let_go, pool = busy(front), front.front._images._pool

    assert front.client.ask("EmbedImages", images(IMAGE)).results
    large = front.client.begin("EmbedImages", images(IMAGE, IMAGE))
    until(lambda: len(pool) == 1)
    let_go.set()

    assert len(large.result().results) == 2


@pytest.mark.parametrize("sent", [raw, encoded], ids=["raw", "files"])
def test_a_clips_frames_arrive_in_their_places(
    fronted: Callable[..., Fronted], engine: ScriptedEngine, sent: Callable[..., Any]
) -> None:
    engine.answers(zeros)
    shown = [picture(seed) for seed in range(4)]

    assert fronted().client.ask("EmbedClips", clip_of(*map(sent, shown))).results

    (clip,) = engine.begun.get(timeout=30).items[0].arrays
    assert (clip == np.stack(shown)).all()
