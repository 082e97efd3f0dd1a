"""Anonymous shared memory that lives as long as somebody holds it: nothing to unlink, nothing left.

Handed to the other process as a file descriptor over the socket, so it has no name that
a stranger could open.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress

__all__ = ["Segment"]


class Segment:
    """A mapped piece of shared memory."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.memory = mmap.mmap(descriptor, size)

    @classmethod
    def create(cls, size: int) -> Segment:
        """A new segment; its pages take memory only once touched."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("tectum", os.MFD_CLOEXEC)
        else:  # no memfd outside Linux: an unlinked file serves
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, size)
        return cls(descriptor, size)

    @classmethod
    def adopt(cls, descriptor: int) -> Segment:
        """The segment behind a descriptor that came over a socket."""
        return cls(descriptor, os.fstat(descriptor).st_size)

    def close(self) -> None:
        """Let go; the memory is freed once all sides have."""
        with suppress(BufferError):  # a view is still alive; the mapping goes with it
            self.memory.close()
        os.close(self.descriptor)
