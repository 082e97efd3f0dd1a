"""Latent actions: does z say how the hand moved, and only that?

The target is the hand's displacement in the camera's frame over one pair, in metres:
right, down, and away; the gripper is left out. Probes are ridge regressions fitted on
training episodes.

Letters: n pairs, N frames of the data set, S their side, d features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from tectum_core.predictor import Predictor
from tectum_train.evaluation import gates
from tectum_train.evaluation.latent_action.ceiling import Supervised
from tectum_train.evaluation.latent_action.few_labels import Labels, measure_few_labels
from tectum_train.evaluation.latent_action.latent_codes import measure_latent_codes
from tectum_train.evaluation.latent_action.transfer import measure_transfer
from tectum_train.evaluation.measuring.context import Context, model_input, of_others
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.pairs import Pairs, draw_pairs
from tectum_train.evaluation.measuring.pixels import flat_pixels
from tectum_train.evaluation.measuring.probes import Pca, fit_ridge, r_squared

__all__ = ["measure_latent_actions"]

_TRAIN_PAIRS, _TEST_PAIRS, _BATCH = 12_000, 4_000, 256
_COMPONENTS = 256
_FLOATS = 2**28
"""In one array of features: a gibibyte."""

_Seen = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]

Features = Callable[[Pairs], NDArray[np.float32]]
"""What a probe reads of pairs: float32[n, d]."""


def measure_latent_actions(context: Context, supervised: Supervised | None = None) -> list[Measure]:
    """R² of the hand's displacement from z, against everything that should know less.

    Args:
        context: of a predictor of latent actions.
        supervised: networks to stand beside z where labels are few; None: nobody trains them.
    """
    predictor = context.predictor
    if predictor.model.latent_action is None:
        return []
    train = draw_pairs(context, context.train, _TRAIN_PAIRS, "training pairs")
    test = draw_pairs(context, context.test, _TEST_PAIRS, "test pairs")
    strange = (
        _shuffled(train, context.generator("shuffled training pairs")),
        _shuffled(test, context.generator("shuffled test pairs")),
    )
    strangers = of_others(test.episode, context.generator("strangers' z, painted"))
    z = _latents(predictor, train), _latents(predictor, test)
    width = z[0].shape[1]

    def explained(seen: NDArray[np.floating], asked: NDArray[np.floating]) -> NDArray[np.float64]:
        return r_squared(fit_ridge(seen, train.moved, asked, train.episode), test.moved)

    def principal(read: Features) -> NDArray[np.float64]:
        return explained(*_principal(read, train, test))

    of_z = explained(*z)
    change = _principal(_change, train, test)
    of_change = explained(*change)
    of_twin = explained(_latents(context.twin, train), _latents(context.twin, test))
    plane = {
        gates.CHANGE_OF_WIDTH: _plane(explained(*(part[:, :width] for part in change))),
        gates.CHANGE_PCA: _plane(of_change),
        gates.ALONE_PIXELS: _plane(principal(lambda p: flat_pixels(p.frames, p.first))),
        gates.ALONE_TOKENS: _plane(principal(lambda p: _tokens(predictor, p))),
        gates.ALONE_STILL: _plane(
            explained(*(_latents(predictor, p.still()) for p in (train, test)))
        ),
        gates.OTHER_NEXT: _plane(explained(*(_latents(predictor, p) for p in strange))),
        "random init": _plane(of_twin),
    }
    depth = {gates.CHANGE_PCA: float(of_change[2]), "random init": float(of_twin[2])}
    value, copy = _plane(of_z), _prediction_error(predictor, test, strangers)
    labels = Labels(train.moved[:, :2], train.episode, test.moved[:, :2])

    def taught(by: Supervised, episodes: NDArray[np.int64] | None) -> float:
        return _plane(by.whole(context) if episodes is None else by.few(context, episodes))

    ahead = {gates.OTHER_Z: copy["shuffled"]}
    if predictor.model.latent_action.config.target == "pixels":
        what, rule = "next frame's error", gates.FRAME_RULE
        foreseen = gates.frame_is_predicted(copy["model"])
    else:
        what, rule = "error of the next frame's trunk tokens", gates.TOKENS_RULE
        foreseen = gates.tokens_are_predicted(copy["model"], ahead)
    name = f"latent action ({width}) over {context.interval:g} s →"
    return [
        Measure(
            f"{name} hand in plane, R²",
            value,
            plane,
            gates.MOTION_RULE,
            gates.motion_is_in_z(value, plane),
            f"{len(test)} pairs of {len(np.unique(test.episode))} episodes",
        ),
        Measure(f"{name} hand, right, R²", float(of_z[0])),
        Measure(f"{name} hand, down, R²", float(of_z[1])),
        Measure(f"{name} hand, depth, R²", float(of_z[2]), depth),
        Measure(
            f"latent action, {what} ÷ copying",
            copy["model"],
            ahead,
            rule,
            foreseen,
        ),
        *measure_few_labels(
            name,
            z,
            change,
            width,
            labels,
            context.generator("labelled episodes"),
            None if supervised is None else partial(taught, supervised),
        ),
        *measure_latent_codes(context, test),
        *measure_transfer(context, train, test),
    ]


def _gathered(read: Features, pairs: Pairs) -> NDArray[np.float32]:
    """`read` over all pairs, in batches: float32[n, d]."""
    parts = (pairs.at(slice(s, s + _BATCH)) for s in range(0, len(pairs), _BATCH))
    first = read(next(parts))
    rows = np.empty((len(pairs), first.shape[1]), np.float32)
    rows[: len(first)] = first
    for number, part in enumerate(parts, start=1):
        rows[number * _BATCH : number * _BATCH + len(part)] = read(part)
    return rows


def _principal(
    read: Features, train: Pairs, test: Pairs
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sets in the training pairs' principal components.

    Found on as many of the training pairs as fit in memory, evenly spread over them.
    """
    most = max(_COMPONENTS, _FLOATS // read(train.at(slice(1))).shape[1])
    chosen = np.linspace(0, len(train) - 1, min(most, len(train))).astype(np.int64)
    fitted = _gathered(read, train.at(chosen))
    components = Pca(fitted, _COMPONENTS)
    whole = len(chosen) == len(train)
    seen = components(fitted) if whole else None
    del fitted  # before the next one is made

    def placed(pairs: Pairs) -> NDArray[np.float64]:
        parts = (pairs.at(slice(start, start + most)) for start in range(0, len(pairs), most))
        return np.concatenate([components(_gathered(read, part)) for part in parts])

    return placed(train) if seen is None else seen, placed(test)


def _latents(predictor: Predictor, pairs: Pairs) -> NDArray[np.float32]:
    """Z of every pair, [n, D]."""
    return _gathered(
        lambda part: predictor.latent_actions(list(part.earlier), list(part.later)).vectors, pairs
    )


def _tokens(predictor: Predictor, pairs: Pairs) -> NDArray[np.float32]:
    """All that the trunk says of the earlier frames, [n, d]."""
    return predictor.embed_images(list(pairs.earlier), "tokens").reshape(len(pairs), -1)


def _change(pairs: Pairs) -> NDArray[np.float32]:
    return flat_pixels(pairs.frames, pairs.second) - flat_pixels(pairs.frames, pairs.first)


@torch.inference_mode()
def _prediction_error(
    predictor: Predictor, pairs: Pairs, strangers: NDArray[np.int64]
) -> dict[str, float]:
    """Squared error of what is predicted of the later frame, as a share of copying the earlier.

    Args:
        predictor: has latent actions.
        pairs: n of them.
        strangers: int64[n], the pair whose z each is predicted from for comparison.
    """
    model = predictor.model
    module = model.latent_action
    if module is None:
        raise ValueError("the bundle predicts no latent actions")
    asks = module.config.predicts_from_trunk
    sums = dict.fromkeys(("model", "shuffled", "copy"), 0.0)

    def seen(part: Pairs) -> _Seen:
        """Earlier frame and its trunk tokens, what is to be predicted of the later one, and z."""
        pixels = [model_input(predictor, frames) for frames in (part.earlier, part.later)]
        before, after = (module.frames(frame) for frame in pixels)
        trunk = None
        if asks:
            trunk = (model.vision(pixels[0]).tokens, model.vision(pixels[1]).tokens)
        z = module.infer(before, after, trunk).vectors
        own = None if trunk is None else trunk[0]
        return before, own, module.target(after, None if trunk is None else trunk[1]), z

    for start in range(0, len(pairs), _BATCH):
        part = slice(start, start + _BATCH)
        before, own, after, z = seen(pairs.at(part))
        *_, strange = seen(pairs.at(strangers[part]))
        for name, guess in (
            ("copy", module.target(before, own)),
            ("model", module.predict(before, z, own)),
            ("shuffled", module.predict(before, strange, own)),
        ):
            sums[name] += float((guess - after).square().sum())
    return {name: value / sums["copy"] for name, value in sums.items()}


def _shuffled(pairs: Pairs, draw: np.random.Generator) -> Pairs:
    """The same earlier frames beside later ones of other episodes."""
    return replace(pairs, second=pairs.second[of_others(pairs.episode, draw)])


def _plane(scores: NDArray[np.float64]) -> float:
    """Mean over the two in-plane axes."""
    return float(scores[:2].mean())
