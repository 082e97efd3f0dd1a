"""A policy on the frozen trunk: what its pooled vector adds to the state, to say what to do next.

Behaviour cloning as R3M is judged by: a small head on a trunk that stays as it is, beside the
robot's own state, fitted on the training episodes' actions. Here the head is linear and foretells
half a second of actions, so that no rollout and no choice of training is between a trunk and its
number. What counts is what is gained over the state alone, which knows where the hand is. Of that
a linear head would make little, and a trunk could seem to help that only bends what the state says;
so beside the state stand random waves of it, with which a linear head is a smooth function of any
shape, for every trunk and control alike.

Errors are squared, in standard deviations of the actions that are fitted: the mean action costs
about 1.

Letters: n windows, T steps of a chunk, A numbers in an action, P in a state, d features.

Source: R3M (arXiv:2203.12601), section 4; random features: Rahimi and Recht 2007 (NeurIPS).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.evaluation import gates, gates_trunk
from tectum_train.evaluation.measuring.context import Context, in_batches, starts
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside
from tectum_train.evaluation.measuring.pixels import flat_pixels
from tectum_train.evaluation.measuring.probes import Pca, fit_ridge

__all__ = ["measure_policy"]

_SECONDS = 0.5
_FITTED, _ASKED, _COMPONENTS = 2048, 1024, 256
_WAVES, _LENGTH = 256, 1.5
"""Random features of the state, and over how many of its standard deviations they bend."""
_LEAST = 1e-6
"""A number that never changes is no reason to divide by nothing."""

Features = NDArray[np.floating]


def measure_policy(context: Context) -> list[Measure]:
    """Error of the next actions from pooled vector and state, beside the state and less."""
    steps = max(1, round(_SECONDS * context.test.dataset.info.fps))
    known, asked = _windows(context.train, steps, _FITTED), _windows(context.test, steps, _ASKED)
    truth, true = (
        _chunks(context, samples, index, steps)
        for samples, index in ((context.train, known), (context.test, asked))
    )
    mean, spread = truth.mean(axis=0), np.maximum(truth.std(axis=0), _LEAST)
    truth, true = (truth - mean) / spread, (true - mean) / spread
    state, new_state = context.states(context.train)[known], context.states(context.test)[asked]
    episode = context.train.episode[known]

    waved = _waves(state, context.generator("waves of the state"))
    shown, new_shown = waved(state), waved(new_state)

    def errors_of(seen: Features, new: Features) -> NDArray[np.float64]:
        scale = max(float(np.sqrt(seen.var(axis=0).mean())), _LEAST) if seen.size else 1.0
        told = fit_ridge(  # what is seen beside the state, in one scale with it
            np.concatenate([seen / scale, shown], axis=1), truth,
            np.concatenate([new / scale, new_shown], axis=1), episode,
        )  # fmt: skip
        return np.asarray(np.square(told - true).mean(axis=1), np.float64)

    def of_trunk(predictor: Predictor) -> NDArray[np.float64]:
        def embed(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return predictor.embed_images(frames, "pooled")

        return errors_of(
            in_batches(embed, context.train.frames, known),
            in_batches(embed, context.test.frames, asked),
        )

    pixels = flat_pixels(context.train.frames, known)
    components = Pca(pixels, _COMPONENTS)
    own = of_trunk(context.predictor)
    others = {
        gates.RANDOM_INIT: np.mean([of_trunk(twin) for twin in context.twins], axis=0),
        gates.PIXELS: errors_of(
            components(pixels), components(flat_pixels(context.test.frames, asked))
        ),
        gates_trunk.STATE: errors_of(shown[:, :0], new_shown[:, :0]),
        gates.MEAN_ACTION: np.square(true).mean(axis=1),
    }
    controls, errors = beside(own, others, context.test.episode[asked])
    value = float(own.mean())
    return [
        Measure(
            f"frozen trunk and state → next actions, {steps} steps, squared error in standard "
            "deviations",
            value,
            controls,
            gates_trunk.POLICY_RULE,
            gates_trunk.policy_gains(value, controls, errors),
            context.counted(asked, "windows"),
            errors=errors,
        )
    ]


def _waves(
    state: NDArray[np.float64], draw: np.random.Generator
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """What gives states [n, P], standardised as these are, and waves of them: [n, P + W]."""
    mean, spread = state.mean(axis=0), np.maximum(state.std(axis=0), _LEAST)
    slopes = draw.normal(0, 1 / _LENGTH, (state.shape[1], _WAVES))
    phases = draw.uniform(0, 2 * np.pi, _WAVES)

    def waved(states: NDArray[np.float64]) -> NDArray[np.float64]:
        even = (states - mean) / spread
        return np.concatenate([even, np.cos(even @ slopes + phases)], axis=1)

    return waved


def _windows(samples: Samples, steps: int, most: int) -> NDArray[np.int64]:
    """So many frames, evenly over the data set, that begin a chunk within their episode."""
    whole = starts(samples, steps - 1)
    return whole[np.linspace(0, len(whole) - 1, min(most, len(whole))).round().astype(np.int64)]


def _chunks(
    context: Context, samples: Samples, index: NDArray[np.int64], steps: int
) -> NDArray[np.float64]:
    """Actions from each frame on: [n, T·A]."""
    actions = context.actions(samples)[index[:, None] + np.arange(steps)]
    return actions.reshape(len(index), -1).astype(np.float64)
