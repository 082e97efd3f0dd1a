"""What pictures need before a model takes them, and doing it: ahead of their batch, beside others'.

Of an operation's arrays those of bytes are pictures, or clips; all others are numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tectum_core.predictor import Predictor
from tectum_core.preprocess import fits
from tectum_server.worker.engine.policy.cost import Preparation
from tectum_server.worker.jobs import Array, Item

__all__ = ["preparation", "prepared"]

_UNIT = 2**14
"""Pixels; so many cost next to nothing."""
_DIGITS = 3
"""Binary ones of a size that are told apart: costs are learnt for a few sizes, not for all."""


def preparation(model: str, item: Item, predictor: Predictor) -> Preparation | None:
    """What an item's pictures need; None: nothing, they have the model's size.

    Args:
        model: `name@version`.
        item: to look at.
        predictor: the model's.
    """
    pixels = sum(array.size // 3 for array in _unfit(item, predictor))
    return Preparation((model, "prepare"), _rounded(-(-pixels // _UNIT))) if pixels else None


def prepared(item: Item, predictor: Predictor) -> Item:
    """The item with its pictures as the model takes them, in memory of their own.

    Whatever is computed of it has the same bits.
    """
    unfit = {id(array) for array in _unfit(item, predictor)}
    arrays: list[Any] = [  # a tensor, in the end, where the predictor takes one for a picture
        predictor.fitted(array) if id(array) in unfit else array for array in item.arrays
    ]
    return replace(item, arrays=tuple(arrays))


def _unfit(item: Item, predictor: Predictor) -> list[Array]:
    """The pictures and clips that have another size."""
    return [
        array
        for array in item.arrays
        if array.dtype == np.uint8
        and not fits(array.shape[-3], array.shape[-2], predictor.config.images)
    ]


def _rounded(size: int) -> int:
    """The next size up of those that are told apart."""
    dropped = max(size.bit_length() - _DIGITS, 0)
    return -(-size >> dropped) << dropped
