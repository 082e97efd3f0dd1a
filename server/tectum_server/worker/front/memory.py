"""How many bytes of pixels the front's requests hold, before and while they are decoded.

Pure bookkeeping. A picture of a few kilobytes may hold a hundred megabytes of pixels, so a
request books what its headers announce before the first of them is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping

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

    def share(self, priority: Priority = Priority.CONTROL) -> Share:
        """One request's part; nothing yet, and never what is kept for higher classes."""
        return Share(self, priority)


class Share:
    """What one request holds; whoever asked for it releases it in the end."""

    def __init__(self, memory: Memory, priority: Priority) -> None:
        self._memory = memory
        self._priority = priority
        self._held = 0

    def take(self, sizes: Mapping[str, int]) -> None:
        """Hold more: all of it, or nothing.

        Args:
            sizes: bytes by the field that needs them.

        Raises:
            Failure: IMAGE_TOO_LARGE or TOO_MANY_ITEMS if the request can never fit, naming the
                first field beyond; QUEUE_FULL while others hold too much.
        """
        memory, total = self._memory, self._held
        for field, size in sizes.items():
            total += size
            if size > memory.capacity:
                raise Failure(
                    errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE,
                    f"{size} bytes of pixels, at most {memory.capacity} are allowed",
                    field,
                )
            if total > memory.capacity:
                raise Failure(
                    errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
                    f"with this one the request holds {total} bytes of pixels, "
                    f"at most {memory.capacity} are allowed",
                    field,
                )
        others = memory.used - self._held
        if not has_room(memory.capacity, others, total, self._priority):
            raise Failure(
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"other requests hold {others} of the {memory.capacity} bytes "
                f"for pixels, this one needs {total}",
            )
        memory.used = others + total
        self._held = total

    def release(self) -> None:
        """Hold nothing any more."""
        self._memory.used -= self._held
        self._held = 0
