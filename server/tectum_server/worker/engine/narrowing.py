"""One GPU for one engine: it sees no other one.

Whatever asks CUDA for its first GPU without saying so opens a context there, which takes hundreds
of megabytes of it, once for each engine of the machine.
"""

from __future__ import annotations

import os
from itertools import takewhile

import torch

__all__ = ["left_to_see", "see_only"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def left_to_see(device: str, visible: str | None) -> str | None:
    """What CUDA_VISIBLE_DEVICES says where one device is all that is seen.

    Args:
        device: a torch device.
        visible: what it says now; None: nothing.

    Returns:
        None: the device is no GPU that is named by its number.

    Raises:
        ValueError: so many are not seen.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number.isdecimal():
        return None
    if visible is None:
        return str(int(number))
    # CUDA takes a negative number for the list's end.
    named = takewhile(
        lambda one: one and not one.startswith("-"), map(str.strip, visible.split(","))
    )
    seen = list(named)
    if int(number) >= len(seen):
        raise ValueError(_none(device, len(seen), f" of {_VISIBLE}={visible}"))
    return seen[int(number)]


def see_only(device: str) -> str:
    """Let this process see no GPU but its device; before it has asked CUDA for anything.

    Returns:
        What torch calls the device from now on.

    Raises:
        ValueError: there is no such GPU.
    """
    if not torch.backends.cuda.is_built():
        return device
    before = os.environ.get(_VISIBLE)
    own = left_to_see(device, before)
    if own is None:
        return device
    os.environ[_VISIBLE] = own
    if torch.cuda.device_count() == 1:
        return "cuda"
    del os.environ[_VISIBLE]
    if before is not None:
        os.environ[_VISIBLE] = before
    raise ValueError(_none(device, torch.cuda.device_count(), ""))


def _none(device: str, count: int, whose: str) -> str:
    gpus = f"cpu or cuda:0 to cuda:{count - 1}" if count > 1 else "cpu or cuda:0"
    allowed = gpus if count else "cpu, for there is no GPU"
    return f"device {device!r}: allowed{whose} is {allowed}"
