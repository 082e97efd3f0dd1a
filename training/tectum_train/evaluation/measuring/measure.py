"""One number with what it must be compared to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Measure"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A held-out number, its controls, and whether it is good enough."""

    name: str
    """Short, in the field's terms."""
    value: float
    """The model's."""
    controls: Mapping[str, float] = field(default_factory=dict)
    """What others reach: chance, raw pixels, a random-init twin, …"""
    gate: str = ""
    """The rule in words; empty: reported only."""
    passed: bool | None = None
    """Whether the rule holds; None: no rule."""
    on: str = ""
    """How much of what it was measured on; empty: the same as the one before."""
    part: str = ""
    """What was measured, of which this is one number; in TensorBoard its heading."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Two standard errors of the difference to a control, those of one episode varying together
    (`paired`); of controls that were asked the same, and of these alone."""
