"""When calls come that wait for no answer: seconds from the start, in order, without a clock."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["PATTERNS", "constant", "poisson"]


def poisson(rate: float, seconds: float, dice: random.Random) -> Iterator[float]:
    """Independent callers: gaps are exponential, of mean 1 / rate.

    Args:
        rate: calls a second, above 0.
        seconds: how long they come.
        dice: to draw from.
    """
    at = 0.0
    while (at := at + dice.expovariate(rate)) < seconds:
        yield at


def constant(rate: float, seconds: float, _: random.Random) -> Iterator[float]:
    """One caller that keeps time: call n comes at n / rate; nothing is drawn."""
    for number in range(int(rate * seconds)):
        yield number / rate


PATTERNS = {"poisson": poisson, "constant": constant}
"""By the words for them."""
