"""Whether what a batch answered is numbers: none goes out with NaN or infinity in it.

Numbers that a caller sends are finite, but they may be so large that what the model makes of them
is not. Where no numbers were sent, a picture's or a text's answer is at fault of the model itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    Array,
    FillActions,
    FillClip,
    FilledToken,
    FillImage,
    ItemOutput,
    Operation,
    Rollout,
)

__all__ = ["if_finite"]


def if_finite(operation: Operation, output: ItemOutput) -> ItemOutput | Failure:
    """An item's output, or that it is not finite.

    Args:
        operation: what it answers; where it measures what it filled in, NaN says that an element
            was visible, and is no fault.
        output: whole, whether all of it was asked for or not.

    Returns:
        The output; or NOT_FINITE where the caller sent numbers, else INTERNAL.
    """
    arrays = output.arrays
    if isinstance(operation, FillImage | FillClip | FillActions):
        *rest, hidden, error = arrays
        arrays = (*rest, error[hidden])
    if all(map(_finite, arrays)) and _all_finite(output.tokens):
        return output
    match operation:
        case Rollout(has_actions=True):
            return _too_large("")
        case FillActions():
            return _too_large("actions.actions")
    why = "the model's answer holds NaN or infinity"
    return Failure(errors_pb2.ERROR_REASON_INTERNAL, why)


def _too_large(field: str) -> Failure:
    return Failure(
        errors_pb2.ERROR_REASON_NOT_FINITE,
        "the model's answer holds NaN or infinity; allowed are numbers nearer to those of its "
        "training data",
        field,
    )


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _all_finite(tokens: Iterable[FilledToken]) -> bool:
    return all(
        math.isfinite(number)
        for token in tokens
        for number in (token.error or 0.0, *(chance for _, chance in token.candidates))
    )
