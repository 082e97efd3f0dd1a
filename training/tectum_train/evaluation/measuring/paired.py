"""Whether two things that were asked the same differ by more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tectum_train.evaluation.measuring.context import NothingToMeasure

__all__ = ["Beside", "beside", "two_errors"]


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


class Beside(NamedTuple):
    """What others had of what was asked."""

    controls: dict[str, float]
    """Their means."""
    errors: dict[str, float]
    """Two standard errors of the difference to each."""


def beside(
    own: NDArray[np.floating],
    others: Mapping[str, NDArray[np.floating]],
    groups: NDArray[np.int64],
) -> Beside:
    """The means of others beside one's own, and how far apart they may be by chance.

    Args:
        own: float[n], right or wrong, or how wrong, of each that was asked.
        others: likewise, by what they are called.
        groups: int64[n], the episode or sentence each is of. Of one alone nothing is known of
            chance, and there are no errors.
    """
    several = len(np.unique(groups)) > 1
    return Beside(
        {name: float(theirs.mean()) for name, theirs in others.items()},
        {name: two_errors(own - theirs, groups) for name, theirs in others.items() if several},
    )
