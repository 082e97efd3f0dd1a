"""An interrupt as a call begins: it arrives, the client still closes, nothing goes on behind it."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import pytest
from tests.client.fake_worker import FakeWorker

from tectum import Client
from tectum.starter import Starter

PATIENCE = 30.0
PICTURE = np.zeros((4, 6, 3), np.uint8)


class Started:
    """A call of which it is known whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture
def starter() -> Starter:
    return Starter()


@contextmanager
def interrupts() -> Iterator[None]:
    """Within, Ctrl-C ends what the main thread does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def one_as_a_thread_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C comes as anybody but a starter is about to start a thread."""
    start, came = threading.Thread.start, threading.Event()

    def interrupting(thread: threading.Thread) -> None:
        if thread.name != "tectum-starter" and not came.is_set():
            came.set()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # the main thread hears of it before there is one
        start(thread)

    with interrupts(), monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupting)
        yield


def ends(what: Callable[[], object]) -> bool:
    """Whether it comes to an end, rather than wait without one."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()


@pytest.mark.parametrize(
    "ask",
    [lambda client: client.embed_images([PICTURE]), lambda client: client.stream(embed=True)],
    ids=["a call", "a stream"],
)
def test_a_client_closes_whenever_its_call_was_interrupted(
    ask: Callable[[Client], object], worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(worker.address)

    with one_as_a_thread_starts(monkeypatch), pytest.raises(KeyboardInterrupt):
        ask(client)

    assert ends(client.close)


def test_what_begins_is_given_and_what_it_raises_is_raised(starter: Starter) -> None:
    def fail() -> Started:
        raise ValueError("closed")

    begun = Started()

    assert starter.start(lambda: begun) is begun
    with pytest.raises(ValueError, match="closed"):
        starter.start(fail)
    assert not begun.cancelled.is_set()


def test_the_main_threads_calls_begin_in_another_and_others_where_they_are(
    starter: Starter,
) -> None:
    where = SimpleQueue[str]()

    def begin() -> Started:
        where.put(threading.current_thread().name)
        return Started()

    starter.start(begin)
    other = threading.Thread(target=starter.start, args=(begin,), name="other")
    other.start()
    other.join()

    assert [where.get(), where.get()] == ["tectum-starter", "other"]


def test_what_nobody_waits_for_any_more_is_cancelled(starter: Starter) -> None:
    begun = Started()

    def begin() -> Started:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return begun

    with interrupts(), pytest.raises(KeyboardInterrupt):
        starter.start(begin)

    assert begun.cancelled.wait(PATIENCE)


def test_what_was_begun_is_not_held_until_the_next_call(starter: Starter) -> None:
    kept = weakref.ref(starter.start(Started))
    ended = time.monotonic() + PATIENCE

    while kept() is not None and time.monotonic() < ended:
        time.sleep(0.01)

    assert kept() is None


def test_its_thread_ends_with_it() -> None:
    starter = Starter()
    starter.start(Started)
    thread = starter._thread
    assert thread is not None

    del starter

    thread.join(PATIENCE)
    assert not thread.is_alive()
