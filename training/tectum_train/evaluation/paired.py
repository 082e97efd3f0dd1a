"""Whether two things that were asked the same differ by more than chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tectum_train.evaluation.context import NothingToMeasure

__all__ = ["two_errors"]


def two_errors(differences: NDArray[np.floating], groups: NDArray[np.int64]) -> float:
    """Two standard errors of the mean of paired differences, those of one group varying together.

    Frames and words of one episode are much alike: what is drawn anew are episodes.

    Args:
        differences: float[n].
        groups: int64[n], which group each is of.

    Raises:
        NothingToMeasure: there is one group alone.

    Source: the cluster-robust variance of a mean, e.g. Cameron and Miller 2015 (Journal of Human
    Resources 50), section II, its correction for few groups among it.
    """
    names, place = np.unique(groups, return_inverse=True)
    number = len(names)
    if number < 2:
        raise NothingToMeasure("frames of one episode alone say nothing of chance")
    sums = np.bincount(place, weights=differences - differences.mean(), minlength=number)
    variance = float(np.square(sums).sum()) / len(differences) ** 2 * number / (number - 1)
    return 2 * variance**0.5
