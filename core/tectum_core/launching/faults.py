"""What an error of a device means for who goes on: CUDA has one kind for nearly all of them."""

from __future__ import annotations

import threading

import torch

__all__ = ["CAPTURING", "device_lost", "out_of_memory"]

CAPTURING = threading.Lock()
"""Held while a graph is recorded: a process records one at a time, and nobody may wait for the
whole device meanwhile, nor have torch give back what it has cached."""


def out_of_memory(error: BaseException) -> bool:
    """Whether there was none, on a device or, for what is pinned, on the host."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)


def device_lost(error: BaseException, device: torch.device) -> bool:
    """Whether, after such an error, a device does nothing any more for this process.

    What a kernel does wrong is told by the same kind of error as what the host asks wrongly, but
    only the first stays: then waiting for the device fails as well.
    """
    if device.type != "cuda" or not isinstance(error, torch.AcceleratorError):
        return False
    try:
        with CAPTURING:
            torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False
