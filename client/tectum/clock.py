"""How far the worker's clock is ahead of this one, by what both said of the same messages.

Pure bookkeeping: no threads and no sockets; whoever sends and hears passes the times in.

Source: RFC 5905 (NTP), sections 8 and 10: four timestamps, and of the last eight samples the one
that was least long on its way.
"""

from collections import deque
from dataclasses import dataclass

SAMPLES = 8
"""So many are remembered."""
FIRST_PROBES, SOON, LATER = 4, 0.25, 10.0
"""The first so many probes come so many seconds apart, the others later."""
_STEP = 0.001
"""Seconds that clocks may drift apart between samples without having been set."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one message there and back tells."""

    offset: float
    """Seconds that the worker's clock is ahead."""
    delay: float
    """Seconds on the way, there and back together; the offset is off by at most half of them. Less
    than none: one of the clocks was set meanwhile."""


def sample(sent: float, received: float, answered: float, heard: float) -> Sample:
    """What four timestamps tell.

    Args:
        sent, heard: on this clock.
        received, answered: on the worker's.
    """
    offset = ((received - sent) + (answered - heard)) / 2
    return Sample(offset, (heard - sent) - (answered - received))


class Clock:
    """An estimate, and when to ask for a better one."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._probes = 0
        self._asked: float | None = None

    @property
    def best(self) -> Sample | None:
        """The sample that is least wrong. None: there is none yet."""
        # A copy: one thread sends and another one hears.
        return min(tuple(self._samples), key=lambda one: one.delay, default=None)

    def hear(self, found: Sample) -> None:
        """Remember a sample; of a clock that was set since then, nothing older."""
        best = self.best
        if best is not None:
            doubt = (abs(found.delay) + best.delay) / 2 + _STEP
            if found.delay < 0 or abs(found.offset - best.offset) > doubt:
                self._samples.clear()
        if found.delay >= 0:
            self._samples.append(found)

    def due(self, now: float) -> bool:
        """Whether to ask again.

        Args:
            now: monotonic seconds.
        """
        pause = SOON if self._probes < FIRST_PROBES else LATER
        return self._asked is None or now - self._asked >= pause

    def asked(self, now: float) -> None:
        """A probe leaves."""
        self._probes += 1
        self._asked = now
