"""What a frozen trunk's vectors tell of a picture's task: by neighbours, and by linear probes.

The field's measures of a representation that has no head of its own: neighbours, a linear probe of
all labels, and one of few. Beside each number stand the same probe of raw pixels and of a network
of random weights. Probes are fitted on frames of the training episodes and asked about frames of
held-out ones. Few labels are those of whole episodes, some of every task; of the others
principal components may know what they like, as may the trunk.

Letters: n fitted samples, m asked ones, d features, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tectum_core.predictor import Predictor
from tectum_train.evaluation import gates, gates_trunk
from tectum_train.evaluation.context import Context, NothingToMeasure, in_batches, second_half
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.pixels import flat_pixels
from tectum_train.evaluation.probes import Pca, classify

__all__ = [
    "TRUNK",
    "Features",
    "classify_by_neighbours",
    "labelled_episodes",
    "measure_features",
    "tasks_told",
]

Features = NDArray[np.floating]

_NEIGHBOURS, _TEMPERATURE = 20, 0.07
_TEST_STRIDE, _TRAIN_STRIDE = 3, 8
_COMPONENTS = 256
_ASKED_AT_ONCE = 512
_SHARE, _DRAWS = 0.1, 5
"""Of the episodes that are labelled where labels are few, and how often these are drawn."""
_PENALTIES = (1e0, 3e-1, 1e-1, 3e-2, 1e-2, 1e-3)
"""Where labels are few, weaker ones are never chosen and take longest."""
TRUNK = "trunk"
"""Whose features are asked; the others are controls."""


def classify_by_neighbours(
    train: Features,
    labels: NDArray[np.int64],
    test: Features,
    classes: int,
    neighbours: int = _NEIGHBOURS,
    temperature: float = _TEMPERATURE,
) -> NDArray[np.float64]:
    """Shares of the votes: each of the nearest by cosine has exp(cosine ÷ temperature) of them.

    Args:
        train: float[n, d].
        labels: int64[n], from 0 on.
        test: float[m, d].
        classes: how many there are.
        neighbours: k; all if there are fewer.
        temperature: how much more the nearest of them count.

    Returns:
        [m, classes]; each row sums to 1.

    Source: Wu et al. 2018 (arXiv:1805.01978), section 3.4; 20 neighbours as DINO reports them.
    """
    known, asked = (F.normalize(torch.from_numpy(x).double(), dim=1) for x in (train, test))
    votes = F.one_hot(torch.from_numpy(labels), classes).double()
    found = []
    for some in asked.split(_ASKED_AT_ONCE):
        cosine, nearest = (some @ known.t()).topk(min(neighbours, len(known)), dim=1)
        weight = (cosine / temperature).softmax(dim=1)
        found.append((weight[:, :, None] * votes[nearest]).sum(dim=1))
    return torch.cat(found).numpy()


def measure_features(context: Context) -> list[Measure]:
    """Frame → task family by the trunk's pooled vectors: neighbours, and a linear probe.

    The probe is a logistic regression on standardised features, which is BatchNorm without affine
    and a linear map.
    """
    fitted_at = second_half(context.train)[::_TRAIN_STRIDE]
    asked_at = second_half(context.test)[::_TEST_STRIDE]
    if not len(fitted_at) or not len(asked_at):
        raise NothingToMeasure("no episode has a second half")
    near, *others = tasks_told(
        context, "frozen trunk", "frames", fitted_at, asked_at,
        lambda: _features(context, fitted_at, asked_at),
        context.generator("episodes with a task's label"),
    )  # fmt: skip
    passed = gates_trunk.features_tell(near.value, near.controls)
    return [replace(near, gate=gates_trunk.FEATURES_RULE, passed=passed), *others]


def tasks_told(
    context: Context,
    whose: str,
    what: str,
    fitted_at: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    features_of: Callable[[], Mapping[str, tuple[Features, Features]]],
    draw: np.random.Generator,
) -> list[Measure]:
    """Three probes of the task family, from every label and from few.

    Args:
        context: the evaluation.
        whose: what the measures are called after.
        what: is asked about, in the plural.
        fitted_at: int64[n], training frames at which they stand or begin.
        asked_at: int64[m], held-out ones.
        features_of: gives [n, d] and [m, d], those of `TRUNK` and each control's.
        draw: of the episodes that are labelled where few are.

    Raises:
        NothingToMeasure: all is of one task.
    """
    fitted, asked = context.families(context.train)[fitted_at], context.families(context.test)
    names, labels = np.unique(np.concatenate([fitted, asked[asked_at]]), return_inverse=True)
    if len(names) < 2:
        raise NothingToMeasure("all is of one task, with no other to tell it from")
    labels, true = np.split(labels, [len(fitted_at)])
    features = features_of()
    episode, classes = context.train.episode[fitted_at], len(names)
    chosen = [labelled_episodes(episode, labels, _SHARE, draw) for _ in range(_DRAWS)]

    def right(scores: NDArray[np.float64]) -> float:
        return float((scores.argmax(axis=1) == true).mean())

    def from_few(known: Features, new: Features) -> float:
        shares = [
            right(classify(known[own], labels[own], new, episode[own], classes, _PENALTIES))
            for own in chosen
        ]
        return float(np.mean(shares))

    near = {
        whose: right(classify_by_neighbours(known, labels, new, classes))
        for whose, (known, new) in features.items()
    }
    linear = {
        whose: right(classify(known, labels, new, episode, classes))
        for whose, (known, new) in features.items()
    }
    majority = {"majority class": float((true == np.bincount(labels).argmax()).mean())}
    few = {whose: from_few(known, new) for whose, (known, new) in features.items()}
    counted = context.counted(asked_at, what)
    return [
        Measure(f"{whose} → task, neighbours", near.pop(TRUNK), near | majority, on=counted),
        Measure(f"{whose} → task, linear probe", linear.pop(TRUNK), linear | majority),
        Measure(
            f"{whose} → task from {_SHARE:.0%} of the labels",
            few.pop(TRUNK),
            few | majority,
            on=f"{len(np.unique(episode[chosen[0]]))} labelled episodes, mean of {_DRAWS} draws",
        ),
    ]


def labelled_episodes(
    episode: NDArray[np.int64],
    labels: NDArray[np.int64],
    share: float,
    draw: np.random.Generator,
) -> NDArray[np.bool_]:
    """Which samples are labelled: those of a share of each class's episodes, one at least.

    Args:
        episode: int64[n].
        labels: int64[n].
        share: of the episodes.
        draw: of which ones.

    Returns:
        bool[n].
    """
    taken = list[NDArray[np.int64]]()
    for label in np.unique(labels):
        episodes = np.unique(episode[labels == label])
        taken.append(draw.permutation(episodes)[: max(1, round(share * len(episodes)))])
    return np.isin(episode, np.concatenate(taken))


def _features(
    context: Context, fitted_at: NDArray[np.int64], asked_at: NDArray[np.int64]
) -> dict[str, tuple[Features, Features]]:
    """[n, d] and [m, d] of the trunk and of each control."""
    train, test = context.train.frames, context.test.frames

    def pooled(predictor: Predictor) -> tuple[Features, Features]:
        def embed(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return predictor.embed_images(frames, "pooled")

        return in_batches(embed, train, fitted_at), in_batches(embed, test, asked_at)

    pixels = flat_pixels(train, fitted_at)
    components = Pca(pixels, _COMPONENTS)
    return {
        TRUNK: pooled(context.predictor),
        gates.RANDOM_INIT: pooled(context.twin),
        gates.PIXELS: (components(pixels), components(flat_pixels(test, asked_at))),
    }
