"""Live cameras for `simulation`: a stream as its front has it, and what becomes of its frames.

Of the frames that wait only the newest are kept; one at a time has a place in the engine's line,
which a newer one may take once as many wait as may. A worker's front does so with decoding and
transport in between; here neither takes time, but where `looking` reads what is newer. Times are
whole milliseconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from tectum_server.worker.engine.policy.batching import Reason, Waiting
from tectum_server.worker.engine.policy.cost import Preparation

__all__ = ["Answer", "Camera", "Stream"]


@dataclass(frozen=True, slots=True)
class Camera:
    """What is filmed, and how a stream asks for it."""

    first_ms: float
    """When its first frame is captured, which is when its stream opens."""
    period_ms: float
    """From one frame to the next, unless `captures_ms` says when each is."""
    frames: int
    lifespan_ms: int
    key: Hashable = "frame"
    """As `Waiting.key`."""
    priority: int = 1
    preparation: Preparation | None = None
    """What has to be done to each frame before it can run; None: nothing."""
    depth: int = 1
    """How many frames may wait."""
    captures_ms: tuple[int, ...] = ()
    """When each frame is captured, rising, as a recording has it; empty: one every period."""

    def captured_ms(self, frame: int) -> int:
        """When a frame is."""
        if self.captures_ms:
            return self.captures_ms[frame]
        return int(self.first_ms + frame * self.period_ms)


@dataclass(frozen=True, slots=True)
class Answer:
    """To one frame."""

    frame: int
    captured_ms: int
    began_ms: int
    """When its batch did."""
    answered_ms: int
    newest: int
    """The frame that was the newest then."""


@dataclass(slots=True)
class Stream:
    """One camera's, and what it has heard."""

    camera: Camera
    answers: list[Answer] = field(default_factory=list)
    superseded: int = 0
    stale: int = 0
    failed: Counter[Reason] = field(default_factory=Counter)
    """Frames by why they have no answer, if they are neither."""
    captured: int = 0
    """Frames so far."""
    reads: list[int] = field(default_factory=list)
    """Of each answer, how many newer frames its place was asked for."""
    asked_ms: int | None = None
    """When its place was asked for what is newer, the last time; None: not yet."""
    took_ms: int = 0
    """Until it had answered."""
    _newest: deque[int] = field(default_factory=deque)
    """That wait for a place, the oldest first."""
    _placed: int | None = None
    """That has one."""
    _offered: int | None = None
    """That is read, for the place of the other one."""
    _asked: int = 0
    _began_ms: int = 0
    _newest_then: int = 0
    _turn_ms: int | None = None

    @property
    def next_ms(self) -> int | None:
        """When the next frame is captured; None: there is none."""
        return (
            self.camera.captured_ms(self.captured) if self.captured < self.camera.frames else None
        )

    def capture(self) -> None:
        """There is one frame more."""
        if self._is_full:
            self._newest.popleft()
            self.superseded += 1
        self._newest.append(self.captured)
        self.captured += 1

    def place(self, item: int, now_ms: int) -> Waiting | None:
        """The next frame's place in the line; None: one has it already, or there is no frame.

        Args:
            item: names it, if there is one.
            now_ms: now.
        """
        if not self._newest or self._placed is not None:
            return None
        if self._turn_ms is None:
            self._turn_ms = now_ms
        self._placed = self._newest.popleft()
        self.asked_ms, self.took_ms, self._asked = None, 0, 0
        camera = self.camera
        return Waiting(
            item,
            camera.key,
            camera.priority,
            self._stale_ms(self._placed),
            item,
            self._turn_ms,
            camera.preparation,
        )

    def renew(self, now_ms: int) -> int | None:
        """Let the place be for a newer frame; gives when that is stale. None: none outdoes it."""
        if not self._outdone(now_ms):
            return None
        self._offered = self._newest.popleft()
        return self.settle(taken=True)

    def offer(self, now_ms: int) -> bool:
        """The place is asked for what is newer; whether there is a frame to be read."""
        self.asked_ms, self.took_ms = now_ms, 0
        if not self._outdone(now_ms):
            return False
        self._offered = self._newest.popleft()
        self._asked += 1
        return True

    def answered_asking(self, now_ms: int) -> None:
        """The frame that was offered has been read."""
        self.took_ms = now_ms - (self.asked_ms or 0)

    def settle(self, taken: bool) -> int | None:
        """Hear whether the frame that was offered has the place; gives when it is stale, if so."""
        offered, self._offered = self._offered, None
        if offered is None:
            return None
        if taken:
            self.superseded += 1
            self._placed = offered
            return self._stale_ms(offered)
        if self._is_full:
            self.superseded += 1
        else:
            self._newest.appendleft(offered)
        return None

    def begin(self, now_ms: int) -> bool:
        """The place's batch begins; whether its frame may be in it."""
        self._began_ms, self._newest_then = now_ms, self.captured - 1
        return not self.too_old(now_ms)

    def too_old(self, now_ms: int) -> bool:
        """Whether the frame that has a place is of no use any more."""
        return self._placed is None or self._stale_ms(self._placed) <= now_ms

    def refused(self, reason: Reason) -> None:
        """The frame that had a place, or asked for one, has no answer."""
        self._placed = None
        if reason in (Reason.DEADLINE_PASSED, Reason.DEADLINE_UNREACHABLE):
            self.stale += 1
        else:
            self.failed[reason] += 1

    def answered(self, now_ms: int) -> None:
        """The batch has ended."""
        if self._placed is None:
            raise AssertionError("only a frame with a place is answered")
        frame, camera = self._placed, self.camera
        self.answers.append(
            Answer(frame, camera.captured_ms(frame), self._began_ms, now_ms, self._newest_then)
        )
        self.reads.append(self._asked)
        self._placed, self._turn_ms = None, now_ms

    @property
    def _is_full(self) -> bool:
        return len(self._newest) >= self.camera.depth

    def _outdone(self, now_ms: int) -> bool:
        """Whether the place is for an older frame than it may be, as things are."""
        return self._is_full or (bool(self._newest) and self.too_old(now_ms))

    def _stale_ms(self, frame: int) -> int:
        return self.camera.captured_ms(frame) + self.camera.lifespan_ms
