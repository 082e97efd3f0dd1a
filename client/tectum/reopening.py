"""Whether a stream that was lost is opened anew, and when.

Policy alone: no clock, no waiting. A refusal that asking again does not help is no loss.
"""

from dataclasses import dataclass

from tectum.errors import Cancelled, DeadlineExceeded, TectumError, Unavailable, invalid

LONGEST = 86_400.0
"""Seconds that one outage may last."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries where the worker names none: doubled from one try to the next."""
_STABLE = 5.0
"""Seconds that an accepted stream must have lasted for its loss to be another outage."""


@dataclass(slots=True)
class Outage:
    """What a stream does while it is lost; between outages it knows nothing."""

    patience: float = 0.0
    """Seconds to go on trying. 0: a lost stream is not opened anew."""
    _since: float | None = None
    _tries: int = 0
    _accepted: float | None = None

    def pause(self, error: TectumError, now: float, dice: float) -> float | None:
        """Seconds to wait before the next try.

        Args:
            error: What ended the stream, or the last try.
            now: Seconds on any clock that never goes back.
            dice: Uniform in [0, 1): robots that were lost together do not come back together.

        Returns:
            None: the error is to be raised.
        """
        if not comes_back(error):
            return None
        if self._accepted is not None and now - self._accepted > _STABLE:
            self.over()
        self._since = now if self._since is None else self._since
        left = self._since + self.patience - now
        if left <= 0:
            return None
        usual = min(_FIRST_PAUSE * 2**self._tries, _LONGEST_PAUSE)
        self._tries = min(self._tries + 1, 16)
        wanted = usual if error.retry_after is None else error.retry_after
        return min(wanted * (1 + dice / 2), left)

    def accepted(self, now: float) -> None:
        """The stream was accepted, which ends the outage if it is not lost again at once."""
        self._accepted = now

    def over(self) -> None:
        """A frame was answered."""
        self._since, self._tries, self._accepted = None, 0, None


def comes_back(error: TectumError) -> bool:
    """Whether an error says no more than that the worker is away, or has no place, for now."""
    return error.retry_after is not None or isinstance(
        error, Unavailable | DeadlineExceeded | Cancelled
    )


def patience(reconnect: float) -> float:
    """A stream's option `reconnect`.

    Raises:
        InvalidInput: it is no time.
    """
    if not 0 <= reconnect <= LONGEST:
        raise invalid("reconnect", f"found {reconnect!r} s; allowed: 0 to {LONGEST:g} s")
    return float(reconnect)
