"""Frame → task by sentences never trained on: does the picture know what is being done?

Frames are of the second half of held-out episodes, where the task has begun to show. A
task's score is the best of its held-out sentences; R@1 is how often the true task wins.
Controls are fitted on the training episodes' true families, which the model never saw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tectum_train.data.samples import Samples
from tectum_train.evaluation.context import Context, in_batches
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.probes import Pca, classify

__all__ = ["measure_retrieval"]

_TEST_STRIDE, _TRAIN_STRIDE = 3, 8
_COMPONENTS = 256
_R1, _R1_PAIRS = 0.65, 0.70


def measure_retrieval(context: Context) -> list[Measure]:
    """R@1 over all tasks, and within pairs of tasks that share a scene."""
    test_at = _second_half(context.test, _TEST_STRIDE)
    train_at = _second_half(context.train, _TRAIN_STRIDE)
    true = context.families(context.test)[test_at]
    labels = context.families(context.train)[train_at]
    test, train = context.test.frames[test_at], context.train.frames[train_at]

    scores = {"model": _by_sentences(context, test)}
    pixels = Pca(_flat(train), _COMPONENTS)
    scores["PCA-256 + logistic"] = classify(pixels(_flat(train)), labels, pixels(_flat(test)))
    twin = context.twin
    scores["random init + logistic"] = classify(
        in_batches(lambda f: twin.embed_images(f, "pooled"), train),
        labels,
        in_batches(lambda f: twin.embed_images(f, "pooled"), test),
    )
    states = (
        context.train.column(context.state)[train_at].astype(np.float64),
        context.test.column(context.state)[test_at].astype(np.float64),
    )
    scores["proprioception + logistic"] = classify(
        _quadratic(states[0]), labels, _quadratic(states[1])
    )
    families = len(context.world.families)
    everything = {name: _recall(values, true) for name, values in scores.items()}
    within = {
        name: _pair_recall(values, true, context.world.partners) for name, values in scores.items()
    }
    model, pairs = everything.pop("model"), within.pop("model")
    return [
        Measure(
            "frame → task, R@1",
            model,
            {**everything, "chance": 1 / families},
            f"≥ {_R1}",
            model >= _R1,
        ),
        Measure(
            "frame → task within same-scene pairs, R@1",
            pairs,
            {**within, "chance": 0.5},
            f"≥ {_R1_PAIRS}",
            pairs >= _R1_PAIRS,
        ),
    ]


def _by_sentences(context: Context, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n, families]: the best cosine to any of a family's held-out sentences."""
    images = in_batches(lambda f: context.predictor.embed_images(f, "joint"), frames)
    columns = []
    for family in sorted(context.world.families, key=lambda family: family.index):
        sentences = context.world.sentences(family.name, held_out=True)
        texts = context.predictor.embed_texts(sentences)
        columns.append((images @ texts.T).max(axis=1))
    return np.stack(columns, axis=1).astype(np.float64)


def _second_half(samples: Samples, stride: int) -> NDArray[np.int64]:
    """Frames of the second half of each episode, every `stride`-th."""
    lengths = samples.step + (samples.last - np.arange(len(samples))) + 1
    late = np.flatnonzero(samples.step * 2 >= lengths)
    return late[::stride]


def _recall(scores: NDArray[np.float64], true: NDArray[np.int64]) -> float:
    return float((scores.argmax(axis=1) == true).mean())


def _pair_recall(
    scores: NDArray[np.float64], true: NDArray[np.int64], partners: dict[int, int]
) -> float:
    """How often the true task beats its partner, over frames of tasks that have one."""
    rows = np.flatnonzero(np.isin(true, list(partners)))
    other = np.array([partners[int(family)] for family in true[rows]])
    return float((scores[rows, true[rows]] > scores[rows, other]).mean())


def _flat(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return frames.reshape(len(frames), -1).astype(np.float32) / np.float32(255)


def _quadratic(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """The state and its products: position alone is not linear in the task."""
    products = states[:, :, None] * states[:, None, :]
    upper = np.triu_indices(states.shape[1])
    return np.concatenate([states, products[:, upper[0], upper[1]]], axis=1)
