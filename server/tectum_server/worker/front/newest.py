"""The one frame of a stream that waits: the newest.

Whoever computes takes it, and gives it back if it comes to nothing. Answers nothing itself.
"""

from __future__ import annotations

import asyncio

from tectum_server.worker.front.frames import Frame

__all__ = ["Newest"]


class Newest:
    """A place for one frame, in which a newer one outdoes what is there."""

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, frame: Frame) -> Frame | None:
        """It waits from now on; gives the older one whose place it takes."""
        outdone, self._frame = self._frame, frame
        self._changed.set()
        return outdone

    def put_back(self, frame: Frame) -> bool:
        """Let a frame wait again that was taken, unless a newer one does; whether it waits."""
        if self._frame is not None:
            return False
        self.put(frame)
        return True

    def end(self) -> None:
        """No more frames come."""
        self._ended = True
        self._changed.set()

    def clear(self) -> None:
        """Hold no frame any more."""
        if self._frame is not None:
            self._frame.drop()
            self._frame = None

    async def take(self) -> Frame | None:
        """The frame that waits, once there is one; None: the last has been taken."""
        while self._frame is None and not self._ended:
            await self._change()
        frame, self._frame = self._frame, None
        return frame

    async def newer(self, than: int, *, patient: bool) -> Frame | None:
        """The frame that waits, if it has a higher id than that.

        Args:
            than: the id.
            patient: whether to wait until there is one, for ever if none comes; else None.
        """
        while (frame := self._frame) is None or frame.frame_id <= than:
            if not patient:
                return None
            await self._change()
        self._frame = None
        return frame

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
