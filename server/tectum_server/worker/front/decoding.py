"""Threads that take what is most urgent first.

Knows nothing of pictures, nor of what its work is. What runs is not interrupted: the most
urgent work waits for one thread to be done with what it has, never for what waits beside it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

__all__ = ["UrgentFirst"]

_T = TypeVar("_T")
_Rank = tuple[int, float, int]


class UrgentFirst:
    """A pool of threads whose queue is ordered: by priority, then by deadline, then by arrival.

    Args:
        threads: at most so many at once.
        name: what they are called.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._waiting: list[tuple[_Rank, Future[Any], Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}_{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """How much waits."""
        return len(self._waiting)

    def submit(self, work: Callable[[], _T], priority: int, deadline: float) -> Future[_T]:
        """Have work done; cancelling it while it waits takes it out.

        Args:
            work: to be done on a thread.
            priority: lower goes first.
            deadline: of equals, the earlier goes first.

        Raises:
            RuntimeError: the pool is closed.
        """
        future: Future[_T] = Future()
        rank = (priority, deadline, next(self._numbers))
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            heapq.heappush(self._waiting, (rank, future, work))
            self._changed.notify()
        future.add_done_callback(partial(self._forget, rank))
        return future

    def close(self) -> None:
        """Take nothing new, cancel what waits, finish what runs."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for _, future, _ in waiting:
            future.cancel()
        for thread in self._threads:
            thread.join()

    def _forget(self, rank: _Rank, future: Future[Any]) -> None:
        """Let go of cancelled work: what it holds may be large."""
        if future.cancelled():
            with self._changed:
                self._waiting = [entry for entry in self._waiting if entry[0] != rank]
                heapq.heapify(self._waiting)

    def _serve(self) -> None:
        while self._do_one():
            pass

    def _do_one(self) -> bool:
        """Whether there was something to do; nothing of it is held while the next is waited for."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return False
            _, future, work = heapq.heappop(self._waiting)
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        finally:
            del future, work  # an error's traceback would hold them, and so itself
        return True
