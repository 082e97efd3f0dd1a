"""In which numbers losses are computed, whatever the step around them asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["sum_dtype", "wide", "without_autocast"]

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def without_autocast(loss: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """A loss whose products stay as wide as their operands.

    Autocast rounds both operands of a product, float32 ones too: to widen them before is in vain.
    At least one argument is a tensor.
    """

    @wraps(loss)
    def exact(*given: _Given.args, **named: _Given.kwargs) -> _Made:
        tensors = (one for one in (*given, *named.values()) if isinstance(one, Tensor))
        with torch.autocast(next(tensors).device.type, enabled=False):
            return loss(*given, **named)

    return exact


def sum_dtype(device: torch.device) -> torch.dtype:
    """The widest floats that a device has: of sums that pieces of a batch add up."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(values: Tensor) -> Tensor:
    """float32, or float64 if it is that already."""
    return values if values.dtype == torch.float64 else values.float()
