"""How long a batch may take before the thread that computes it counts as stuck.

A kernel that never returns, or a deadlock inside a library, cannot be interrupted: only another
process helps.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["Stuck", "patience", "within"]

_Found = TypeVar("_Found")
_TIMES = 10
"""Of what was predicted: a batch that is run again in halves takes a few times as long, and a
machine with much else to do makes it more."""
_PARTS = 10
"""In which the time passes: a machine that was suspended has lost one of them at most."""


class Stuck(Exception):
    """A batch has not come back; the message says within what time."""


def patience(expected_ms: float | None, least: float) -> float:
    """Seconds that a batch may take.

    Args:
        expected_ms: what it was predicted to take, milliseconds; None: nobody knows.
        least: seconds that any batch may take.
    """
    return max(_TIMES * (expected_ms or 0.0) / 1000, least)


async def within(work: asyncio.Future[_Found], seconds: float) -> _Found:
    """What comes of a batch.

    Raises:
        Stuck: it has not come within so many seconds.
        Exception: the batch's own.
    """
    for _ in range(_PARTS):
        done, _ = await asyncio.wait({work}, timeout=seconds / _PARTS)
        if done:
            return work.result()
    raise Stuck(f"a batch has not come back within {seconds:g} s")
