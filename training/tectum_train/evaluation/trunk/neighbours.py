"""What a frozen trunk's vectors tell of a picture's task: by neighbours, and by linear probes.

The field's measures of a representation that has no head of its own: neighbours, a linear probe of
all labels, and one of few. Beside each number stand the same probe of raw pixels and, a mean over
draws, of networks of random weights. Probes are fitted on frames of the training episodes and asked
about frames of held-out ones. Few labels are those of whole episodes, some of every task; of the
others principal components may know what they like, as may the trunk.

Which vectors are near depends on how features are scaled: the pixels' first components are light
and background, and drown the rest. So neighbours are sought among the vectors as they are and among
so many of their standardised components, for the trunk as for every control, and each has what is
right most often on training episodes set aside.

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
from tectum_train.evaluation.measuring.context import (
    Context,
    NothingToMeasure,
    in_batches,
    second_half,
)
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside
from tectum_train.evaluation.measuring.pixels import flat_pixels
from tectum_train.evaluation.measuring.probes import Pca, classify, set_aside

__all__ = [
    "TRUNK",
    "Arms",
    "Features",
    "classify_by_neighbours",
    "labelled_episodes",
    "measure_features",
    "nearest_told",
    "spread",
    "tasks_told",
]

Features = NDArray[np.floating]

_NEIGHBOURS, _TEMPERATURE = 20, 0.07
_TEST_STRIDE, _TRAIN_STRIDE = 9, 12
_COMPONENTS = 256
_ASKED_AT_ONCE = 512
_SHARE, _DRAWS = 0.1, 5
"""Of the episodes that are labelled where labels are few, and how often these are drawn."""
_PENALTIES = (1e0, 3e-1, 1e-1, 3e-2, 1e-2, 1e-3)
"""Where labels are few, weaker ones are never chosen and take longest."""
_WIDTHS = (None, 256, 128, 64, 32, 16)
"""Standardised components that neighbours are sought among; None: the vectors as they are."""
TRUNK = "trunk"
"""Whose features are asked; the others are controls."""
Arms = Mapping[str, Sequence[tuple[Features, Features]]]
"""By whose they are, [n, d] and [m, d]; of several draws, what is right is averaged over them."""


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


def nearest_told(
    train: Features,
    labels: NDArray[np.int64],
    test: Features,
    episode: NDArray[np.int64],
    classes: int,
) -> NDArray[np.float64]:
    """`classify_by_neighbours`, of features scaled as serves best on episodes set aside.

    Args:
        train: float[n, d].
        labels: int64[n], from 0 on.
        test: float[m, d].
        episode: int64[n], which each training sample is of.
        classes: how many there are.

    Returns:
        [m, classes].
    """
    aside = set_aside(episode)
    known, own = train[~aside], labels[~aside]

    def scores(width: int | None) -> float:
        told = classify_by_neighbours(*_scaled(known, own, train[aside], width), classes)
        return float((told.argmax(axis=1) == labels[aside]).mean())

    widths = [width for width in _WIDTHS if width is None or width <= train.shape[1]]
    return classify_by_neighbours(*_scaled(train, labels, test, max(widths, key=scores)), classes)


def _scaled(
    known: Features, labels: NDArray[np.int64], asked: Features, width: int | None
) -> tuple[Features, NDArray[np.int64], Features]:
    if width is None:
        return known, labels, asked
    components = Pca(known, width)
    inner = components(known)
    return inner / inner.std(axis=0), labels, components(asked) / inner.std(axis=0)


def measure_features(context: Context) -> list[Measure]:
    """Frame → task family by the trunk's pooled vectors: neighbours, and a linear probe.

    The probe is a logistic regression on standardised features, which is BatchNorm without affine
    and a linear map.
    """
    fitted_at = second_half(context.train)[::_TRAIN_STRIDE]
    asked_at = second_half(context.test)[::_TEST_STRIDE]
    if not len(fitted_at) or not len(asked_at):
        raise NothingToMeasure("no episode has a second half")
    arms = _features(context, fitted_at, asked_at)
    near, *others = tasks_told(
        context, "frozen trunk", "frames", fitted_at, asked_at, lambda: arms,
        context.generator("episodes with a task's label"),
    )  # fmt: skip
    passed = gates_trunk.features_tell(near.value, near.controls, near.errors)
    own, drawn = (spread(arms[whose][0][1]) for whose in (TRUNK, gates.RANDOM_INIT))
    return [
        replace(near, gate=gates_trunk.FEATURES_RULE, passed=passed),
        *others,
        Measure(
            "frozen trunk, spread of its vectors ÷ their length",
            own,
            {gates.RANDOM_INIT: drawn},
            gates_trunk.SPREAD_RULE,
            gates_trunk.vectors_differ(own),
        ),
    ]


def spread(vectors: Features) -> float:
    """How far vectors lie from their mean, as a share of how long they are; 0: all are one.

    Args:
        vectors: float[n, d].
    """
    wide = np.asarray(vectors, np.float64)
    apart = np.square(wide - wide.mean(axis=0)).sum(axis=1).mean()
    return float((apart / np.square(wide).sum(axis=1).mean()) ** 0.5)


def tasks_told(
    context: Context,
    whose: str,
    what: str,
    fitted_at: NDArray[np.int64],
    asked_at: NDArray[np.int64],
    features_of: Callable[[], Arms],
    draw: np.random.Generator,
) -> list[Measure]:
    """Three probes of the task family, from every label and from few.

    Args:
        context: the evaluation.
        whose: what the measures are called after.
        what: is asked about, in the plural.
        fitted_at: int64[n], training frames at which they stand or begin.
        asked_at: int64[m], held-out ones.
        features_of: gives those of `TRUNK` and each control's.
        draw: of the episodes that are labelled where few are.

    Raises:
        NothingToMeasure: all is of one task.
    """
    fitted, asked = context.families(context.train)[fitted_at], context.families(context.test)
    names, labels = np.unique(np.concatenate([fitted, asked[asked_at]]), return_inverse=True)
    if len(names) < 2:
        raise NothingToMeasure("all is of one task, with no other to tell it from")
    labels, true = np.split(labels, [len(fitted_at)])
    arms = features_of()
    episode, classes = context.train.episode[fitted_at], len(names)
    chosen = [labelled_episodes(episode, labels, _SHARE, draw) for _ in range(_DRAWS)]

    def right(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return (scores.argmax(axis=1) == true).astype(np.float64)

    def by_neighbours(known: Features, new: Features) -> NDArray[np.float64]:
        return right(nearest_told(known, labels, new, episode, classes))

    def by_all(known: Features, new: Features) -> NDArray[np.float64]:
        return right(classify(known, labels, new, episode, classes))

    def by_few(known: Features, new: Features) -> NDArray[np.float64]:
        told = (
            classify(known[own], labels[own], new, episode[own], classes, _PENALTIES)
            for own in chosen
        )
        return np.mean([right(scores) for scores in told], axis=0)

    commonest = (true == np.bincount(labels).argmax()).astype(np.float64)
    few = f"{len(np.unique(episode[chosen[0]]))} labelled episodes, mean of {_DRAWS} draws"
    measures = []
    for name, on, probe in (
        ("task, neighbours", context.counted(asked_at, what), by_neighbours),
        ("task, linear probe", "", by_all),
        (f"task from {_SHARE:.0%} of the labels", few, by_few),
    ):
        hits = {
            arm: np.mean([probe(known, new) for known, new in draws], axis=0)
            for arm, draws in arms.items()
        }
        own = hits.pop(TRUNK)
        others = {**hits, "majority class": commonest}
        controls, errors = beside(own, others, context.test.episode[asked_at])
        measures.append(
            Measure(f"{whose} → {name}", float(own.mean()), controls, on=on, errors=errors)
        )
    return measures


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


def _features(context: Context, fitted_at: NDArray[np.int64], asked_at: NDArray[np.int64]) -> Arms:
    """Of the trunk and of each control."""
    train, test = context.train.frames, context.test.frames

    def pooled(predictor: Predictor) -> tuple[Features, Features]:
        def embed(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return predictor.embed_images(frames, "pooled")

        return in_batches(embed, train, fitted_at), in_batches(embed, test, asked_at)

    pixels = flat_pixels(train, fitted_at)
    components = Pca(pixels, _COMPONENTS)
    return {
        TRUNK: [pooled(context.predictor)],
        gates.RANDOM_INIT: [pooled(twin) for twin in context.twins],
        gates.PIXELS: [(components(pixels), components(flat_pixels(test, asked_at)))],
    }
