"""Names and scales of a robot's actions and state, as training shows them.

What augmentation does to a number counts: a mirror moves its mean, and zoom and shift alone spread
the numbers of a camera that never moves, and places in the picture.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tectum_core.preprocess import ActionScaling
from tectum_train.augment import Draws, Frames
from tectum_train.data.samples import Samples
from tectum_train.engine.following import Following
from tectum_train.engine.states import CAMERA_NAMES
from tectum_train.recipe import Recipe, RecipeError

__all__ = ["scaling_of", "shown_actions"]

_Scales = tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]
"""Of some numbers: names, means, standard deviations."""

_LEAST, _LEAST_PIXELS = 1e-3, 1.0
"""Smallest standard deviation of a number, in its own unit; of a camera's, in pixels."""
_FINEST = 20
"""A share of mirrored actions is told in twentieths or coarser; places in as many draws."""


def scaling_of(recipe: Recipe, samples: Samples) -> ActionScaling:
    """Mean and standard deviation of all that the recipe's model reads and gives.

    Raises:
        RecipeError: it names no actions.
        DataError: the data set lacks a feature.
    """
    frames = Frames(recipe.images.size, recipe.augmentation)

    def recorded(feature: str, what: Literal["actions", "states"]) -> _Scales:
        values = samples.column(feature).astype(np.float64).reshape(len(samples), -1)
        names = _names(samples.dataset.info.features[feature].names, values.shape[1])
        following = Following.told(recipe, samples, what)
        mean, variance = following.moments(frames, values.mean(axis=0), values.var(axis=0))
        return names, mean, np.maximum(np.sqrt(variance), _LEAST)

    if recipe.data.action is None:
        raise RecipeError("model.actions needs data.action")
    names, mean, spread = recorded(recipe.data.action, "actions")
    states = list[_Scales]()
    if recipe.data.state is not None:
        states.append(recorded(recipe.data.state, "states"))
    if recipe.data.intrinsics is not None:
        seen = samples.intrinsics(recipe.data.intrinsics, np.arange(len(samples)))
        seen = seen.astype(np.float64)
        centre, variance = frames.camera_moments(seen.mean(axis=0), seen.var(axis=0))
        states.append((CAMERA_NAMES, centre, np.maximum(np.sqrt(variance), _LEAST_PIXELS)))
    return ActionScaling(
        names=names,
        mean=tuple(mean.tolist()),
        standard_deviation=tuple(spread.tolist()),
        step_interval=1 / samples.dataset.info.fps,
        state_names=tuple(name for one in states for name in one[0]),
        state_mean=tuple(value for one in states for value in one[1].tolist()),
        state_standard_deviation=tuple(value for one in states for value in one[2].tolist()),
    )


def shown_actions(recipe: Recipe, samples: Samples, scaling: ActionScaling) -> Tensor:
    """Every action, standardised: with mirrors also mirrored, each as often as training shows it.

    Those with places in the picture are as the first epochs show them.

    Returns:
        float32[n, A]; n a multiple of the frames that there are.
    """
    every = np.arange(len(samples))
    taken = torch.from_numpy(samples.numbers(recipe.data.action, every))
    following = Following.told(recipe, samples, "actions")
    frames, flip = Frames(recipe.images.size, recipe.augmentation), recipe.augmentation.flip
    if following.places and frames.moves:
        epochs = [Draws(recipe.seed, np.full_like(every, epoch), every) for epoch in range(_FINEST)]
        taken = torch.cat([following.moved(taken, frames.placement(draws)) for draws in epochs])
    elif flip is not None and (following.negated or following.exchanged):
        share = max(Fraction(flip.share).limit_denominator(_FINEST), Fraction(1, _FINEST))
        turned = following.moved(taken, frames.mirror)
        plain = share.denominator - share.numerator
        taken = torch.cat([taken] * plain + [turned] * share.numerator)
    return scaling.standardise(taken)


def _names(found: object, count: int) -> tuple[str, ...]:
    """The data set's own names, in whichever form it has them, or numbers."""
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if isinstance(found, list) and len(found) == count:
        return tuple(map(str, found))
    return tuple(str(number) for number in range(count))
