"""What a child process and its supervisor say to each other, in lines of JSON over pipes.

The child hears its settings on standard input, and says on standard output what it has come to.
"""

from __future__ import annotations

import gc
import json
import os
import select
import sys
from contextlib import suppress
from typing import Any

__all__ = ["BEAT_SECONDS", "UNFINISHED", "beats", "say", "settle", "told"]

UNFINISHED = 5
"""A front's exit code where draining left calls unfinished."""
BEAT_SECONDS = 1.0
"""From one time that an engine says that it lives to the next."""


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


def settle() -> None:
    """Have the garbage collector look past all that has been imported, which never goes.

    Else a full collection walks through the half a million objects of a library such as torch, and
    nobody is served meanwhile; the one as the process ends takes longer than all else of its end.
    """
    gc.freeze()


def say(line: dict[str, object]) -> None:
    """Tell the supervisor; if it has gone, nobody."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), (json.dumps(line) + "\n").encode())


def beats() -> None:
    """Tell the supervisor that this process's event loop turns, unless it reads nothing itself."""
    _, has_room, _ = select.select((), (sys.stdout.fileno(),), (), 0)
    if has_room:
        say({"beats": True})
