"""Frame → task by sentences never trained on: does the picture know what is being done?

Frames are of the second half of held-out episodes, where the task has begun to show. A
task's score is the best of its held-out sentences; R@1 is how often the true task wins.

Controls are classifiers fitted on the training episodes' task families. A model whose recipe
names that column (`data.task`, as tectum-tiny does) had the same labels: they say which
frames and sentences are positives of each other, and which paraphrases a sample may draw. Then
model and classifiers differ in what they read and how they are made, not in supervision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tectum_train.data.samples import Samples
from tectum_train.evaluation.context import Context, in_batches
from tectum_train.evaluation.measure import Measure
from tectum_train.evaluation.perceptron import classify_nonlinearly
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
    model = _by_sentences(context, context.test.frames[test_at])
    controls = _classifiers(context, train_at, test_at)

    families, partners = context.world.families, context.world.partners
    whole = {name: _recall(scores, true) for name, scores in controls.items()}
    value = _recall(model, true)
    taught = f"; ≥ {_fewest_episodes(context)} training episodes a task"
    measures = [
        Measure(
            "frame → task, R@1",
            value,
            {**whole, "chance": 1 / len(families)},
            f"≥ {_R1}",
            value >= _R1,
            context.counted(test_at, "frames") + taught,
        )
    ]
    paired = np.isin(true, list(partners))
    if paired.any():
        pairs = _pair_recall(model, true, partners)
        within = {name: _pair_recall(scores, true, partners) for name, scores in controls.items()}
        measures.append(
            Measure(
                "frame → task within same-scene pairs, R@1",
                pairs,
                {**within, "chance": 0.5},
                f"≥ {_R1_PAIRS}",
                pairs >= _R1_PAIRS,
                context.counted(test_at[paired], "frames") + taught,
            )
        )
    return measures


def _by_sentences(context: Context, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[n, families]: the best cosine to any of a family's held-out sentences."""
    images = in_batches(lambda f: context.predictor.embed_images(f, "joint"), frames)
    columns = []
    for family in sorted(context.world.families, key=lambda family: family.index):
        sentences = context.world.sentences(family.name, held_out=True)
        texts = context.predictor.embed_texts(sentences)
        columns.append((images @ texts.T).max(axis=1))
    return np.stack(columns, axis=1).astype(np.float64)


def _classifiers(
    context: Context, train_at: NDArray[np.int64], test_at: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """[n, families] from each control: what pixels, a random network and the robot's state say."""
    labels, classes = context.families(context.train)[train_at], len(context.world.families)
    episode = context.train.episode[train_at]
    train, test = context.train.frames[train_at], context.test.frames[test_at]
    pixels = Pca(_flat(train), _COMPONENTS)

    def untaught(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return in_batches(lambda f: context.twin.embed_images(f, "pooled"), frames)

    def linear(fitted: NDArray[np.floating], asked: NDArray[np.floating]) -> NDArray[np.float64]:
        return classify(fitted, labels, asked, episode, classes)

    known, asked = context.states(context.train)[train_at], context.states(context.test)[test_at]
    return {
        "PCA-256 + logistic": linear(pixels(_flat(train)), pixels(_flat(test))),
        "random init + logistic": linear(untaught(train), untaught(test)),
        "proprioception + logistic": linear(_quadratic(known), _quadratic(asked)),
        "proprioception + MLP": classify_nonlinearly(known, labels, asked, episode, classes),
    }


def _second_half(samples: Samples, stride: int) -> NDArray[np.int64]:
    """Frames of the second half of each episode, every `stride`-th."""
    lengths = samples.step + (samples.last - np.arange(len(samples))) + 1
    late = np.flatnonzero(samples.step * 2 >= lengths)
    return late[::stride]


def _fewest_episodes(context: Context) -> int:
    """Training episodes of the task that has the fewest."""
    first = np.flatnonzero(context.train.step == 0)
    families = context.families(context.train)[first]
    return min(int((families == family.index).sum()) for family in context.world.families)


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
