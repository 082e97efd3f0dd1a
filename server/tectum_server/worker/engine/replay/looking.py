"""For `simulation`: whoever runs next is asked for its newest frame, and reading that takes time.

What the scheduler does with `renewing`, without its tasks: the rules are those of `asking`. Frames
are read one after another, each as the newest that there was when it was asked for. Times are whole
milliseconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from tectum_server.worker.engine.policy.asking import (
    NEW_MS,
    Needs,
    affordable,
    again_after,
    ask_after,
    keeps,
    waits,
)
from tectum_server.worker.engine.replay.cameras import Stream

__all__ = ["Looking"]

_LOOKS_MS = 50
"""As `renewing`."""


class Looking:
    """Asks, and reads.

    Args:
        places: by their items.
        reads_ms: what reading a frame takes.
        needs: what is to be prepared of an item.
        take: lets a place be for the frame that was read, which is stale at that time.
    """

    def __init__(
        self,
        places: Mapping[int, Stream],
        reads_ms: float,
        needs: Callable[[int], Needs],
        take: Callable[[int, int], None],
    ) -> None:
        self._places = places
        self._reads_ms = reads_ms
        self._needs = needs
        self._take = take
        self._unread: deque[tuple[int, Stream]] = deque()
        """In the order in which they were asked; the first is being read."""
        self._read_ms: int | None = None
        """When that has been."""
        self._look_ms: int | None = None
        self._since_ms: int | None = None
        self._began_ms, self._ends_ms, self._ran_ms = 0, 0.0, 0

    @property
    def next_ms(self) -> int | None:
        """When something happens next by itself."""
        moments = [at for at in (self._read_ms, self._look_ms) if at is not None]
        return min(moments, default=None)

    def began(self, now_ms: int, expected_ms: float) -> None:
        """A batch runs, which should take so long."""
        self._began_ms, self._ends_ms = now_ms, now_ms + expected_ms
        self._look_ms, self._since_ms = now_ms + math.ceil(ask_after(expected_ms)), None

    def ended(self, now_ms: int) -> None:
        """It has."""
        self._look_ms, self._ran_ms = None, now_ms - self._began_ms

    def looks(self, now_ms: int) -> bool:
        """Whether it is time to ask whoever runs next."""
        return self._look_ms is not None and self._look_ms <= now_ms

    def look(self, coming: Sequence[int], expected_ms: float, now_ms: int) -> None:
        """Ask them.

        Args:
            coming: who runs next, as things are.
            expected_ms: what that takes.
            now_ms: now.
        """
        self._look_ms = now_ms + _LOOKS_MS
        if self._since_ms is None:
            self._since_ms = now_ms
        left_ms = max(0.0, self._ends_ms - now_ms)
        for_ms = now_ms - self._since_ms
        self._ask(
            coming,
            left_ms + keeps(expected_ms),
            lambda took_ms: again_after(for_ms, took_ms, left_ms),
            now_ms,
        )

    def freshen(self, items: Sequence[int], expected_ms: float, now_ms: int) -> int | None:
        """Ask a batch's members once more; gives until when it waits for them, if it does."""
        waits_ms = waits(expected_ms, self._ran_ms)
        if not waits_ms:
            return None
        self._ask(items, keeps(expected_ms), lambda _: NEW_MS, now_ms)
        return now_ms + math.floor(waits_ms) if self.reads_for(items) else None

    def reads_for(self, items: Sequence[int]) -> bool:
        """Whether one of them has not answered yet."""
        return any(item in items for item, _ in self._unread)

    def withdraw(self, items: Sequence[int], now_ms: int) -> None:
        """They run, or never will: what is still to be read of them comes too late."""
        first = self._unread[0] if self._unread else None
        for item, stream in self._unread:
            if item in items:
                stream.settle(taken=False)
        self._unread = deque(one for one in self._unread if one[0] not in items)
        if first is not None and (not self._unread or self._unread[0] is not first):
            self._read_next(now_ms)

    def end_reading(self, now_ms: int) -> None:
        """What has been read by now has its place."""
        while self._read_ms is not None and self._read_ms <= now_ms:
            item, stream = self._unread.popleft()
            stream.answered_asking(now_ms)
            stale_ms = stream.settle(taken=True)
            if stale_ms is not None:
                self._take(item, stale_ms)
            self._read_next(now_ms)

    def _ask(
        self,
        items: Sequence[int],
        spare_ms: float,
        after_ms: Callable[[int], float],
        now_ms: int,
    ) -> None:
        """Whoever was not asked yet, and of those who were so long ago whoever may be anew."""
        places = [item for item in items if item in self._places]
        asked = [self._places[item].asked_ms for item in places]
        due = [
            at is None or now_ms - at >= after_ms(self._places[item].took_ms)
            for item, at in zip(places, asked, strict=True)
        ]
        due = [may and not self.reads_for([item]) for item, may in zip(places, due, strict=True)]
        anew = affordable([self._needs(item) for item in places], due, spare_ms)
        for item, at, may in zip(places, asked, anew, strict=True):
            if (may or at is None) and self._places[item].offer(now_ms):
                self._unread.append((item, self._places[item]))
                if len(self._unread) == 1:
                    self._read_next(now_ms)

    def _read_next(self, now_ms: int) -> None:
        waits_for = bool(self._unread)
        self._read_ms = now_ms + max(1, math.ceil(self._reads_ms)) if waits_for else None
