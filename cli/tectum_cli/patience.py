"""Asking a worker that is busy or away again, for work that nobody waits for.

Only for calls that may as well be made twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tectum import TectumError

__all__ = ["Patience"]

_SHORTEST, _LONGEST = 0.5, 30.0
"""Seconds between two tries: the first pause, and what doubling it ends at."""
Answer = TypeVar("Answer")


@dataclass
class Patience:
    """Waits for a worker's answers.

    A worker that was never reached is not waited for: its address is likely wrong.
    """

    seconds: float
    """Longest time to wait for one answer, from when it first failed to come."""
    tell: Callable[[str], None]
    """Called with why it waits, and with nothing once it does no more."""
    heed: Callable[[], None] = lambda: None
    """Called before each try; may raise, which ends the waiting."""
    _reached: bool = False

    def wait_for(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer.

        Raises:
            TectumError: waiting cannot help, or has not.
        """
        from tectum import TectumError

        pause, ends = _SHORTEST, None
        while True:
            self.heed()
            try:
                answer = ask()
            except TectumError as error:
                self._reached = self._reached or bool(error.reason)
                now = time.monotonic()
                ends = now + self.seconds if ends is None else ends
                if not self._may_pass(error) or now >= ends:
                    raise
                self.tell(f"{error}")
                # Spread, so that callers refused together do not come back together.
                wanted = max(pause, error.retry_after or 0.0) * random.uniform(1.0, 1.5)  # noqa: S311
                time.sleep(min(wanted, ends - now))
                pause = min(2 * pause, _LONGEST)
            else:
                self._reached = True
                self.tell("")
                return answer

    def _may_pass(self, error: TectumError) -> bool:
        """Whether a worker that fails so may answer later."""
        from tectum import DeadlineExceeded, Unavailable

        if error.retry_after is not None:
            return True
        return self._reached and isinstance(error, Unavailable | DeadlineExceeded)
