"""How many bytes the front's requests hold, before and while they are decoded.

Pure bookkeeping. A request books its message as soon as it is there. A picture of a few
kilobytes may hold a hundred megabytes of pixels, so a request books what its headers announce
before the first of them is decoded. What a decoder needs beside that while it runs is not
booked: there are as many of them as threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Priority
from tectum_server.worker.shares import has_room

__all__ = ["Memory", "Share"]


class Memory:
    """Room for `capacity` bytes, which all requests share."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.on_shortage: set[Callable[[], None]] = set()
        """Called before anything is refused: each gives back what is of no more use."""

    def share(
        self, priority: Priority = Priority.CONTROL, spare: Callable[[], bool] | None = None
    ) -> Share:
        """One request's part; nothing yet, and never what is kept for higher classes.

        Args:
            priority: the request's.
            spare: gives back something that this request can do without, where there is need;
                whether there was anything.
        """
        return Share(self, priority, spare)


class Share:
    """What one request holds; whoever asked for it releases it in the end."""

    def __init__(
        self, memory: Memory, priority: Priority, spare: Callable[[], bool] | None = None
    ) -> None:
        self._memory = memory
        self._priority = priority
        self._spare = spare
        self.held = 0

    def take_message(self, size: int, field: str = "") -> None:
        """Hold what came in: it cannot be given back before its answer.

        Args:
            size: bytes.
            field: what is so large.

        Raises:
            Failure: MESSAGE_TOO_LARGE if it can never fit; QUEUE_FULL while others hold too much.
        """
        if size > self._memory.capacity:
            raise Failure(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"{size} bytes, there is memory for {self._memory.capacity}",
                field,
            )
        self._take(size)

    def take(self, sizes: Mapping[str, int]) -> None:
        """Hold pixels, too: all of them, or none.

        Args:
            sizes: bytes by the field that needs them.

        Raises:
            Failure: IMAGE_TOO_LARGE or TOO_MANY_ITEMS if the request can never fit, naming the
                first field beyond; QUEUE_FULL while others hold too much.
        """
        capacity, total = self._memory.capacity, self.held
        for field, size in sizes.items():
            total += size
            if total <= capacity:
                continue
            alone = size > capacity or len(sizes) == 1
            raise Failure(
                errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE
                if alone
                else errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
                f"with its {size} bytes of pixels the request holds {total} bytes, "
                f"at most {capacity} are allowed",
                field,
            )
        self._take(total - self.held)

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        self._memory.used -= size
        self.held -= size

    def release(self) -> None:
        """Hold nothing any more."""
        self.give_back(self.held)

    def _take(self, size: int) -> None:
        memory = self._memory
        if not self._fits(size):
            for give_back in list(memory.on_shortage):
                give_back()
        while not self._fits(size):
            if self._spare is not None and self._spare():
                continue
            raise Failure(
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"other requests hold {memory.used - self.held} of the {memory.capacity} bytes "
                f"of memory, this one needs {self.held + size}",
            )
        memory.used += size
        self.held += size

    def _fits(self, size: int) -> bool:
        others = self._memory.used - self.held
        return has_room(self._memory.capacity, others, self.held + size, self._priority)
