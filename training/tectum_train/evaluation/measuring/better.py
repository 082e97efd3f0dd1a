"""What "better than a control" means, where no more than that was demanded.

By at least two standard errors of the paired difference, where both were asked the same frames,
words or windows one by one (`paired`): less is drawn from the episodes that happen to be asked. Of
numbers that are not means over what was asked, by at least one percent of the control, which says
nothing of chance: equal to the digits shown is not better.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BEYOND", "BY", "above", "below", "beyond"]

_MARGIN = 0.01
BY = f"by ≥ {_MARGIN:.0%}"
"""In words."""
BEYOND = "by ≥ two standard errors"
"""Likewise."""


def below(error: float, *controls: float) -> bool:
    """An error below all of them."""
    return error < min(controls) and error <= min(controls) * (1 - _MARGIN)


def above(share: float, *controls: float) -> bool:
    """A share above all of them."""
    return share > max(controls) and share >= max(controls) * (1 + _MARGIN)


def beyond(gains: Mapping[str, float], errors: Mapping[str, float]) -> bool:
    """Whether every gain over a control is one, and no less than its two standard errors.

    Args:
        gains: by control; positive is better.
        errors: two standard errors of each; a gain of which none are known is none.
    """
    return all(name in errors and gain > 0 and gain >= errors[name] for name, gain in gains.items())
