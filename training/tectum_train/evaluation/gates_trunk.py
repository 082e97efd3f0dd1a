"""The gates of what is asked of a frozen trunk, and of a teacher that it learnt from.

As in `gates`: a verdict is a pure function of a measured value and its controls.
"""

from __future__ import annotations

from collections.abc import Mapping

from tectum_train.evaluation.gates import PIXELS, RANDOM_INIT
from tectum_train.evaluation.measuring.better import BEYOND, beyond

__all__ = [
    "DENSE_RULE",
    "FEATURES_RULE",
    "OF_THEIR_MEAN",
    "PLACE",
    "POLICY_RULE",
    "SPREAD_RULE",
    "STATE",
    "SURROUNDINGS",
    "TEACHER_RULE",
    "UNIFORM",
    "features_tell",
    "patches_tell",
    "policy_gains",
    "teacher_tells_apart",
    "vectors_differ",
]

Controls = Mapping[str, float]

PLACE = "its commonest place"
SURROUNDINGS = "PCA-128 of 3×3 patches"
STATE = "state alone"
OF_THEIR_MEAN, UNIFORM = "of their mean", "ln K"


# "kNN above random init and raw pixels"
FEATURES_RULE = f"above random init and PCA-256, each {BEYOND}"


def features_tell(accuracy: float, controls: Controls, errors: Controls) -> bool:
    """By the share of frames whose task their neighbours tell."""
    gains = {name: accuracy - controls[name] for name in (RANDOM_INIT, PIXELS)}
    return beyond(gains, errors)


# That pictures are told apart at all, which neighbours among standardised vectors do not show:
# these find a difference however small. A twentieth is the cosine of 0.9975 to the mean.
_SPREAD = 0.05
SPREAD_RULE = f"≥ {_SPREAD}"


def vectors_differ(spread: float) -> bool:
    """By how far vectors lie from their mean, as a share of their length."""
    return spread >= _SPREAD


DENSE_RULE = f"above random init, pixels about the patch and the commonest place, each {BEYOND}"


def patches_tell(share: float, controls: Controls, errors: Controls) -> bool:
    """By the share of frames whose tokens tell where the hand is."""
    gains = {name: share - controls[name] for name in (RANDOM_INIT, SURROUNDINGS, PLACE)}
    return beyond(gains, errors)


# "frozen-feature policy", of which no number was demanded: it has learnt something, and that is of
# use to who knows where the hand is
POLICY_RULE = f"below random init and the state alone, each {BEYOND}"


def policy_gains(error: float, controls: Controls, errors: Controls) -> bool:
    """By squared errors of the next actions."""
    return beyond({name: controls[name] - error for name in (RANDOM_INIT, STATE)}, errors)


# "teacher entropy between 0 and ln K". A teacher that says everything alike of all has ln K, one
# that says a single prototype of all has 0. One that says the same mixture of all lies between,
# known by the entropy of their mean: it is no more than each one's. By how much it is more, is what
# a view tells of its prototype, in nats: a twentieth at least of all there is to tell.
_TOLD = 0.05
TEACHER_RULE = f"above 0, and below that of their mean by ≥ {_TOLD} ln K"


def teacher_tells_apart(entropy: float, controls: Controls) -> bool:
    """By the mean entropy of what it says; being below ln K, and their mean's above 0, follows."""
    return entropy > 0 and controls[OF_THEIR_MEAN] - entropy >= _TOLD * controls[UNIFORM]
