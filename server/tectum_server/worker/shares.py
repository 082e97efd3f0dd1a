"""Who may fill how much of a queue: bulk work leaves places for those who cannot wait.

Pure arithmetic, for the front's door and for the engine's queue. Priorities are
numbers here, those of `jobs.Priority`: lower goes first.
"""

from __future__ import annotations

__all__ = ["has_room", "share"]

_KEPT_FREE = {1: 0, 2: 1, 3: 2}
"""Eighths of the queue that CONTROL (1), INTERACTIVE (2) and BULK (3) leave to higher classes."""
_LOWEST = max(_KEPT_FREE)


def share(places: int, priority: int) -> int:
    """How many of a queue's places may be taken once a request of this class is in.

    All of them for CONTROL, seven eighths for INTERACTIVE, three quarters for BULK; a
    queue of fewer than four places is too small to keep any free.
    """
    return places - places * _KEPT_FREE[priority] // 8


def has_room(places: int, taken: int, wanted: int, priority: int) -> bool:
    """Whether a request of `wanted` items may join the `taken` ones.

    While no more is taken than what the lowest class keeps free for higher ones, it may fill the
    whole queue: else a request about as large as its class's share, or larger, would be told
    to come again for as long as anybody else is there. One such fits at a time. For all classes
    alike, or a lower one would be let in where a higher one is not.
    """
    limit = share(places, priority)
    return taken + wanted <= (places if taken <= places - share(places, _LOWEST) else limit)
