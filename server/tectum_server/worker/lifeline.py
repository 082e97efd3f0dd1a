"""How a child process notices that its supervisor is gone: standard input ends."""

from __future__ import annotations

import asyncio
import os
import sys

__all__ = ["parent_gone"]


def parent_gone(stop: asyncio.Event) -> None:
    """Set `stop` on the running loop once standard input, a pipe from the parent, has ended."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    os.set_blocking(descriptor, False)

    def readable() -> None:
        try:
            ended = not os.read(descriptor, 4096)
        except BlockingIOError:
            return
        if ended:
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, readable)
