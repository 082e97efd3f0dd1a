"""The gates of what is asked of a frozen trunk, and of a teacher that it learnt from.

As in `gates`: a verdict is a pure function of a measured value and its controls.
"""

from __future__ import annotations

from collections.abc import Mapping

from tectum_train.evaluation.better import BY, above, below
from tectum_train.evaluation.gates import PIXELS, RANDOM_INIT

__all__ = [
    "DENSE_RULE",
    "FEATURES_RULE",
    "OF_THEIR_MEAN",
    "PLACE",
    "POLICY_RULE",
    "STATE",
    "SURROUNDINGS",
    "TEACHER_RULE",
    "UNIFORM",
    "features_tell",
    "patches_tell",
    "policy_gains",
    "teacher_tells_apart",
]

Controls = Mapping[str, float]

PLACE = "its commonest place"
SURROUNDINGS = "PCA-128 of 3×3 patches"
STATE = "state alone"
OF_THEIR_MEAN, UNIFORM = "of their mean", "ln K"


# "kNN above random init and raw pixels"
FEATURES_RULE = f"above random init and PCA-256 {BY}"


def features_tell(accuracy: float, controls: Controls) -> bool:
    """By the share of frames whose task their neighbours tell."""
    return above(accuracy, controls[RANDOM_INIT], controls[PIXELS])


DENSE_RULE = f"above random init, pixels about the patch and the commonest place {BY}"


def patches_tell(share: float, controls: Controls) -> bool:
    """By the share of frames whose tokens tell where the hand is."""
    return above(share, controls[RANDOM_INIT], controls[SURROUNDINGS], controls[PLACE])


# "frozen-feature policy", of which no number was demanded: it has learnt something, and that is of
# use to who knows where the hand is
POLICY_RULE = f"below random init and the state alone {BY}"


def policy_gains(error: float, controls: Controls) -> bool:
    """By squared errors of the next actions."""
    return below(error, controls[RANDOM_INIT], controls[STATE])


# "teacher entropy between 0 and ln K". A teacher that says everything alike of all has ln K, one
# that says a single prototype of all has 0. One that says the same mixture of all lies between,
# known by the entropy of their mean: it is no more than each one's. By how much it is more, is what
# a view tells of its prototype, in nats: a twentieth at least of all there is to tell.
_TOLD = 0.05
TEACHER_RULE = f"above 0, and below that of their mean by ≥ {_TOLD} ln K"


def teacher_tells_apart(entropy: float, controls: Controls) -> bool:
    """By the mean entropy of what it says; being below ln K, and their mean's above 0, follows."""
    return entropy > 0 and controls[OF_THEIR_MEAN] - entropy >= _TOLD * controls[UNIFORM]
