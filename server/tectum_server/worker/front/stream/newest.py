"""The frames of a stream that wait: the newest, as many as may (StreamSetup.depth).

Whoever computes takes the oldest of them, and gives it back if it comes to nothing; while that has
a place in the engine's line, it is outdone once as many newer ones wait. Answers nothing itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tectum_server.worker.front.stream.frames import Frame

__all__ = ["Newest"]


class Newest:
    """Room for a few frames, in which one more outdoes the oldest.

    Args:
        depth: how many may wait, at least 1.
    """

    def __init__(self, depth: int = 1) -> None:
        self.depth = depth
        self._frames: deque[Frame] = deque()
        """In the order in which they came."""
        self._changed = asyncio.Event()
        self._ended = False

    @property
    def oldest(self) -> Frame | None:
        """The one that is taken next."""
        return self._frames[0] if self._frames else None

    def put(self, frame: Frame) -> Frame | None:
        """It waits from now on; gives the oldest one, if it takes its place."""
        outdone = self._frames.popleft() if self._is_full else None
        self._frames.append(frame)
        self._changed.set()
        return outdone

    def put_back(self, frame: Frame) -> bool:
        """Let a frame wait again that was taken, unless as many newer ones do; whether it waits."""
        if self._is_full:
            return False
        self._frames.appendleft(frame)
        self._changed.set()
        return True

    def end(self) -> None:
        """No more frames come."""
        self._ended = True
        self._changed.set()

    def clear(self) -> None:
        """Hold no frame any more."""
        while self._frames:
            self._frames.popleft().drop()

    async def take(self) -> Frame | None:
        """The oldest that waits, once there is one; None: the last has been taken."""
        while not self._frames and not self._ended:
            await self._change()
        return self._frames.popleft() if self._frames else None

    async def newer(
        self, than: int, *, patient: bool, useless: Callable[[], bool] = lambda: False
    ) -> Frame | None:
        """The oldest that waits, if it has a higher id than that, and outdoes the one taken last.

        Args:
            than: the id.
            patient: whether to wait until there is one, for ever if none comes; else None.
            useless: whether the one taken last is: then any newer one outdoes it.
        """
        while not self._outdo(than, useless):
            if not patient:
                return None
            await self._change()
        return self._frames.popleft()

    def _outdo(self, than: int, useless: Callable[[], bool]) -> bool:
        """Whether those that wait do."""
        enough = self._is_full or (bool(self._frames) and useless())
        return enough and self._frames[0].frame_id > than

    @property
    def _is_full(self) -> bool:
        return len(self._frames) >= self.depth

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
