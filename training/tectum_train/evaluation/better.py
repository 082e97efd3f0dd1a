"""What "better than a control" means, where no more than that was demanded.

By at least one percent of the control: what lies closer is noise of the 512 words, windows or pairs
that are measured, and equal to the digits shown.
"""

from __future__ import annotations

__all__ = ["BY", "above", "below"]

_MARGIN = 0.01
BY = f"by ≥ {_MARGIN:.0%}"
"""In words."""


def below(error: float, *controls: float) -> bool:
    """An error below all of them."""
    return error < min(controls) and error <= min(controls) * (1 - _MARGIN)


def above(share: float, *controls: float) -> bool:
    """A share above all of them."""
    return share > max(controls) and share >= max(controls) * (1 + _MARGIN)
