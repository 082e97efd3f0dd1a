"""How late the front's event loop comes to what it is to do: nobody is answered meanwhile.

A timer that is due again and again says how late it rings, and so what kept the loop, whoever did.
What keeps it for less than from one ring to the next may pass unseen between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["RING_SECONDS", "watch"]

RING_SECONDS = 0.005
"""From one ring to the next: as long as the loop may be kept at most."""


async def watch(late: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
    """Tell again and again how late the running loop was, until cancelled.

    Args:
        late: is told, in seconds.
        clock: monotonic seconds.
    """
    while True:
        due = clock() + RING_SECONDS
        await asyncio.sleep(RING_SECONDS)
        late(max(clock() - due, 0.0))
