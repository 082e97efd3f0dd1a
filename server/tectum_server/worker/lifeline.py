"""What a child process and its supervisor have of each other: two pipes.

The child's standard input ends when the supervisor is gone, however it went; on standard
output the child says lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

__all__ = ["parent_gone", "say", "told"]


def told() -> dict[str, Any]:
    """What the supervisor says first: this process's settings.

    Raises:
        SystemExit: it has gone without a word.
    """
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    settings: dict[str, Any] = json.loads(line)
    return settings


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


def say(line: dict[str, object]) -> None:
    """Tell the supervisor; if it has gone, nobody."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), (json.dumps(line) + "\n").encode())
