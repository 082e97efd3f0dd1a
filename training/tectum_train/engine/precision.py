"""How a device fares in bfloat16: asked of the device, since few CPUs have instructions for it."""

from __future__ import annotations

import time

import torch

__all__ = ["bfloat16_cost"]

_SIDE, _TRIES = 384, 7


def bfloat16_cost(device: str) -> float:
    """What a product of matrices takes in bfloat16, as a multiple of float32's; some milliseconds.

    Args:
        device: a torch device. On a GPU it is 1: those that torch knows all have it.
    """
    if torch.device(device).type != "cpu":
        return 1.0
    return _seconds(torch.bfloat16) / _seconds(torch.float32)


def _seconds(kind: torch.dtype) -> float:
    """The fastest of several: others may be at work too."""
    left, right = torch.ones(2, _SIDE, _SIDE, dtype=kind)
    torch.mm(left, right)
    fastest = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        torch.mm(left, right)
        fastest = min(fastest, time.perf_counter() - began)
    return fastest
