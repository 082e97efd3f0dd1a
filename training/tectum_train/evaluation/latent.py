"""Latent actions: does z say how the hand moved, and only that?

The target is the hand's displacement in the camera's frame over one pair, in metres:
right, down, and away; the gripper is left out. Probes are ridge regressions fitted on
training episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.evaluation.context import Context, model_input, of_others, starts
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.probes import Pca, fit_ridge, r_squared

__all__ = ["Pairs", "draw_pairs", "measure_latent_actions"]

_TRAIN_PAIRS, _TEST_PAIRS, _BATCH = 12_000, 4_000, 256
_IN_PLANE, _OVER_WIDTH, _OVER_256, _OVER_ALONE = 0.70, 0.40, 0.05, 0.40
_SHUFFLED, _COPY = 0.10, 0.35


@dataclass(frozen=True, slots=True)
class Pairs:
    """Frames one interval apart, and how the hand moved between them."""

    earlier: NDArray[np.uint8]
    """[n, S, S, 3]."""
    later: NDArray[np.uint8]
    """[n, S, S, 3]."""
    moved: NDArray[np.float64]
    """[n, 3], metres in the camera's frame: right, down, away."""
    episode: NDArray[np.int64]
    """[n], which episode each is of."""


def draw_pairs(context: Context, samples: Samples, count: int, stream: int) -> Pairs:
    """Pairs drawn evenly over a data set."""
    gap = context.pair_steps
    draw = np.random.default_rng([context.seed, stream])
    index = np.sort(draw.permutation(starts(samples, gap))[:count])
    hand = context.states(samples)[:, :3]
    extrinsics = samples.column(context.columns.extrinsics).astype(np.float64)
    rotation = extrinsics[index].reshape(-1, 4, 4)[:, :3, :3]
    moved = np.einsum("nij,nj->ni", rotation, hand[index + gap] - hand[index])
    return Pairs(samples.frames[index], samples.frames[index + gap], moved, samples.episode[index])


def measure_latent_actions(context: Context) -> list[Measure]:
    """R² of the hand's displacement from z, against everything that should know less."""
    if context.predictor.model.latent_action is None:
        return []
    train = draw_pairs(context, context.train, _TRAIN_PAIRS, 10)
    test = draw_pairs(context, context.test, _TEST_PAIRS, 11)
    z_train, z_test = _latents(context.predictor, train), _latents(context.predictor, test)
    width = z_train.shape[1]

    def explained(seen: NDArray[np.floating], asked: NDArray[np.floating]) -> NDArray[np.float64]:
        return r_squared(fit_ridge(seen, train.moved, asked, train.episode), test.moved)

    of_z = explained(z_train, z_test)
    change = Pca(_difference(train), 256)
    coordinates = change(_difference(train)), change(_difference(test))
    of_width = explained(coordinates[0][:, :width], coordinates[1][:, :width])
    of_change = explained(*coordinates)
    alone = Pca(_flat(train.earlier), 256)
    of_alone = explained(alone(_flat(train.earlier)), alone(_flat(test.earlier)))
    strange = (_shuffled(train, context.seed), _shuffled(test, context.seed + 1))
    refitted = explained(*(_latents(context.predictor, pairs) for pairs in strange))
    of_twin = explained(_latents(context.twin, train), _latents(context.twin, test))
    copy = _prediction_error(context.predictor, test)
    plane = {
        "frame-difference PCA, z's width": _plane(of_width),
        "frame-difference PCA-256": _plane(of_change),
        "o_t alone (PCA-256)": _plane(of_alone),
        "shuffled o_t+1, refitted": _plane(refitted),
        "random init": _plane(of_twin),
    }
    value = _plane(of_z)
    passed = (
        value >= _IN_PLANE
        and value >= plane["frame-difference PCA, z's width"] + _OVER_WIDTH
        and value >= plane["frame-difference PCA-256"] + _OVER_256
        and value >= plane["o_t alone (PCA-256)"] + _OVER_ALONE
        and plane["shuffled o_t+1, refitted"] <= _SHUFFLED
    )
    depth = {
        "frame-difference PCA-256": float(of_change[2]),
        "random init": float(of_twin[2]),
    }
    rule = (
        f"≥ {_IN_PLANE}, PCA of z's width + {_OVER_WIDTH}, PCA-256 + {_OVER_256}, "
        f"o_t + {_OVER_ALONE}; shuffled ≤ {_SHUFFLED}"
    )
    name = f"latent action ({width}) over {context.interval:g} s → hand in plane, R²"
    pairs = f"{len(test.moved)} pairs of {len(np.unique(test.episode))} episodes"
    return [
        Measure(name, value, plane, rule, passed, pairs),
        Measure("… right", float(of_z[0])),
        Measure("… down", float(of_z[1])),
        Measure("… depth", float(of_z[2]), depth),
        Measure(
            "latent action, next frame's error ÷ copying",
            copy["model"],
            {"shuffled z": copy["shuffled"]},
            f"≤ {_COPY}",
            copy["model"] <= _COPY,
        ),
    ]


def _latents(predictor: Predictor, pairs: Pairs) -> NDArray[np.float32]:
    """Z of every pair, [n, D]."""
    return np.concatenate(
        [
            predictor.latent_actions(
                list(pairs.earlier[s : s + _BATCH]), list(pairs.later[s : s + _BATCH])
            ).vectors
            for s in range(0, len(pairs.earlier), _BATCH)
        ]
    )


@torch.inference_mode()
def _prediction_error(predictor: Predictor, pairs: Pairs) -> dict[str, float]:
    """Squared error of the predicted later frame as a share of copying the earlier one."""
    model = predictor.model
    module = model.latent_action
    if module is None:
        raise ValueError("the bundle predicts no latent actions")
    draw = np.random.default_rng(0)
    sums = dict.fromkeys(("model", "shuffled", "copy"), 0.0)
    for start in range(0, len(pairs.earlier), _BATCH):
        part = slice(start, start + _BATCH)
        pixels = [model_input(predictor, frames[part]) for frames in (pairs.earlier, pairs.later)]
        before, after = (module.frames(frame) for frame in pixels)
        trunk = None
        if module.config.reads_trunk:
            trunk = (model.vision(pixels[0]).tokens, model.vision(pixels[1]).tokens)
        z = module.infer(before, after, trunk).vectors
        stranger = torch.from_numpy(of_others(pairs.episode[part], draw)).to(predictor.device)
        own = None if trunk is None else trunk[0]
        for name, guess in (
            ("copy", before),
            ("model", module.predict(before, z, own)),
            ("shuffled", module.predict(before, z[stranger], own)),
        ):
            sums[name] += float((guess - after).square().sum())
    return {name: value / sums["copy"] for name, value in sums.items()}


def _shuffled(pairs: Pairs, seed: int) -> Pairs:
    """The same earlier frames beside later ones of other episodes."""
    order = of_others(pairs.episode, np.random.default_rng(seed))
    return replace(pairs, later=pairs.later[order])


def _plane(scores: NDArray[np.float64]) -> float:
    """Mean over the two in-plane axes."""
    return float(scores[:2].mean())


def _difference(pairs: Pairs) -> NDArray[np.float32]:
    return _flat(pairs.later) - _flat(pairs.earlier)


def _flat(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return frames.reshape(len(frames), -1).astype(np.float32) / np.float32(255)
