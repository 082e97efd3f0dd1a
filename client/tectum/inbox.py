"""Answers that wait for whoever reads a stream: the newest, and how old their frames are by then.

Pure bookkeeping: no threads, no tasks and no clock; the shells pass the time in.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from tectum.results import FrameResult
from tectum.vocabulary import FrameStatus

MOST = 64
"""So many answers wait at most, whatever became of their frames."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a frame, and what its age is reckoned from."""

    result: FrameResult
    """As it was told; its age is the one when it was sent."""
    heard: float
    """When it came, seconds on a clock that never goes back."""
    captured: float | None = None
    """When its frame was captured, on that clock. None: this side does not know."""

    def taken(self, now: float) -> FrameResult:
        """The result for who takes it now, with its age by now."""
        if self.captured is None:
            return replace(self.result, age=self.result.age + max(0.0, now - self.heard))
        return replace(self.result, age=max(0.0, now - self.captured))


@dataclass(slots=True)
class Inbox:
    """Room for the answers that nobody has taken yet.

    One more OK answer than may wait takes the place of the oldest, and of all that came before
    that: what is read then begins with an OK one, however slowly it is read.
    """

    depth: int = 1
    """How many OK ones may wait."""
    unread: int = 0
    """Answers that gave way to newer ones."""
    _waiting: deque[Answer] = field(default_factory=deque)
    """In the order in which they came."""

    def put(self, answer: Answer) -> None:
        """It waits from now on."""
        self._waiting.append(answer)
        while len(self._waiting) > MOST or self._answered > self.depth:
            self._forget_oldest()
            # What came before the next OK one is as old as the one that gave way.
            while self._answered == self.depth and not _is_ok(self._waiting[0]):
                self._forget_oldest()

    def take(self, now: float) -> FrameResult | None:
        """The oldest that waits, which then waits no more. None: none does."""
        return self._waiting.popleft().taken(now) if self._waiting else None

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    @property
    def _answered(self) -> int:
        return sum(_is_ok(one) for one in self._waiting)

    def _forget_oldest(self) -> None:
        self._waiting.popleft()
        self.unread += 1


def _is_ok(answer: Answer) -> bool:
    return answer.result.status is FrameStatus.OK
