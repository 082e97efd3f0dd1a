"""The threads of a scheduler, on which all that takes long is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Threads", "on"]

_Found = TypeVar("_Found")


class Threads:
    """One each: work for one of them is done in order, beside that of the others."""

    def __init__(self) -> None:
        self.compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        """Computes, or launches on a device that computes by itself."""
        self.fetch = ThreadPoolExecutor(1, thread_name_prefix="fetch")
        """Waits for the answers of that."""
        self.prepare = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        """Makes ready what is computed next."""

    def between_batches(self, work: Callable[[], object]) -> None:
        """Do something on the thread that computes, for another thread, which waits for it.

        Once that thread has ended nothing is done.

        Raises:
            Exception: the work's own; or it is not done, for the thread is stuck.
        """
        try:
            doing = self.compute.submit(work)
        except RuntimeError:  # it has ended
            return
        doing.result()

    def close(self, *, stuck: bool) -> None:
        """Let them end; one that is stuck does not, and is not waited for, and does no more."""
        for thread in (self.compute, self.fetch, self.prepare):
            thread.shutdown(wait=not stuck, cancel_futures=stuck)


def on(thread: ThreadPoolExecutor, work: Callable[[], _Found]) -> asyncio.Future[_Found]:
    """Do something on a thread, for the event loop that runs."""
    return asyncio.get_running_loop().run_in_executor(thread, work)
