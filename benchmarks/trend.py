"""Whether something grows: a straight line through what was measured in equal steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress

__all__ = ["Trend", "trend"]

_BLOCKS = 12
"""Neighbours are alike, so the line goes through the means of so many blocks of them."""


@dataclass(frozen=True)
class Trend:
    """A slope a step."""

    slope: float
    error: float
    """Its standard error."""

    @property
    def about_zero(self) -> bool:
        """Whether it is no more than two standard errors above zero."""
        return self.slope <= 2 * self.error

    def told(self, steps: int) -> str:
        """What so many steps make, with two standard errors."""
        return f"{self.slope * steps:+.2f} ± {2 * self.error * steps:.2f}"


def trend(values: Sequence[float]) -> Trend:
    """The trend of values measured in equal steps.

    Raises:
        ValueError: fewer than two of them for each block.
    """
    if len(values) < 2 * _BLOCKS:
        raise ValueError(f"found {len(values)} values; allowed: at least {2 * _BLOCKS}")
    blocks = np.array_split(np.asarray(values, float), _BLOCKS)
    places = np.array_split(np.arange(len(values), dtype=float), _BLOCKS)
    line = linregress([one.mean() for one in places], [one.mean() for one in blocks])
    return Trend(float(line.slope), float(line.stderr))
