"""A policy on the frozen trunk: what its pooled vector adds to the state, to say what to do next.

Behaviour cloning as R3M is judged by: a small head on a trunk that stays as it is, beside the
robot's own state, fitted on the training episodes' actions. Here the head is linear and foretells
half a second of actions, so that no rollout and no choice of training is between a trunk and its
number. What counts is what is gained over the state alone, which knows where the hand is.

Errors are squared, in standard deviations of the actions that are fitted: the mean action costs
about 1.

Letters: n windows, T steps of a chunk, A numbers in an action, P in a state, d features.

Source: R3M (arXiv:2203.12601), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.evaluation import gates, gates_trunk
from tectum_train.evaluation.context import Context, in_batches, starts
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.pixels import flat_pixels
from tectum_train.evaluation.probes import Pca, fit_ridge

__all__ = ["measure_policy"]

_SECONDS = 0.5
_FITTED, _ASKED, _COMPONENTS = 3072, 1024, 256
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

    def error(seen: Features, new: Features) -> float:
        told = fit_ridge(
            np.concatenate([seen, state], axis=1), truth,
            np.concatenate([new, new_state], axis=1), episode,
        )  # fmt: skip
        return float(np.square(told - true).mean())

    def of_trunk(predictor: Predictor) -> float:
        def embed(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return predictor.embed_images(frames, "pooled")

        return error(
            in_batches(embed, context.train.frames, known),
            in_batches(embed, context.test.frames, asked),
        )

    pixels = flat_pixels(context.train.frames, known)
    components = Pca(pixels, _COMPONENTS)
    value = of_trunk(context.predictor)
    controls = {
        gates.RANDOM_INIT: of_trunk(context.twin),
        gates.PIXELS: error(
            components(pixels), components(flat_pixels(context.test.frames, asked))
        ),
        gates_trunk.STATE: error(state[:, :0], new_state[:, :0]),
        gates.MEAN_ACTION: float(np.square(true).mean()),
    }
    return [
        Measure(
            f"frozen trunk and state → next actions, {steps} steps, squared error in standard "
            "deviations",
            value,
            controls,
            gates_trunk.POLICY_RULE,
            gates_trunk.policy_gains(value, controls),
            context.counted(asked, "windows"),
        )
    ]


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
