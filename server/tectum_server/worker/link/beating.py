"""The link's heartbeat: an engine whose event loop does not turn is away, connected or not.

A process that is stopped, swapped out or deadlocked keeps its socket open, and nothing else tells.
What computes is another thread, which is watched where it is begun (`engine.stuck`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["BEAT_SECONDS", "PATIENCE", "beat"]

BEAT_SECONDS = 0.1
"""From one beat to the next, and from one turn of who listens to the next."""
PATIENCE = 7
"""Turns without a word after which an engine is away: within a second of its last one its health
is told. Much longer than what else keeps its loop: 60 ms of an extension that holds the
interpreter's lock, 130 ms of a full garbage collection. The turns are the listener's own, so that a
machine on which nobody gets anywhere delays them too."""


async def beat(once: Callable[[], None], seconds: float = BEAT_SECONDS) -> None:
    """Do it again and again, until cancelled, as long as this loop turns."""
    while True:
        once()
        await asyncio.sleep(seconds)
