"""Calls begin where no signal's handler can stop them halfway.

Python runs handlers of signals in the main thread, between any two of its steps. Should one raise
(Ctrl-C does) after grpc has begun a call and before the thread that reads its events, nothing ever
reads them, and closing the channel waits for them without end. So the main thread lets another
thread begin its calls, and only waits.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

__all__ = ["Starter"]


class _Cancellable(Protocol):
    def cancel(self) -> Any: ...


Started = TypeVar("Started", bound=_Cancellable)
_Job = Callable[[], None]


class Starter:
    """Begins calls; its thread lives as long as it does, from the main thread's first call on."""

    def __init__(self) -> None:
        self._jobs = SimpleQueue[_Job | None]()
        self._thread: threading.Thread | None = None
        self._finalizer = weakref.finalize(self, self._jobs.put, None)

    def start(self, begin: Callable[[], Started]) -> Started:
        """What `begin` gives, or raises; it is cancelled if this waiting is broken off."""
        if threading.current_thread() is not threading.main_thread():
            return begin()
        self._be_alive()
        # Lists, which an interrupt between any two lines here leaves for `forget` to look into.
        begun, errors, done = list[Started](), list[Exception](), SimpleQueue[None]()

        def work() -> None:
            try:
                begun.append(begin())
            except Exception as error:
                errors.append(error)
            done.put(None)

        def forget() -> None:
            for one in begun:
                one.cancel()

        try:
            self._jobs.put(work)
            done.get()
        except BaseException:
            self._jobs.put(forget)
            raise
        for error in errors:
            raise error
        return begun[0]

    def _be_alive(self) -> None:
        """Have a thread, in a process that was forked too."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=_work, args=(self._jobs,), name="tectum-starter", daemon=True
            )
            self._thread.start()


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while True:
        job = jobs.get()
        if job is None:
            return
        job()
        del job  # it holds what it began, which may be dropped before the next one comes
