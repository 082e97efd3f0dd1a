"""Frame → task by sentences never trained on: does the picture know what is being done?

Frames are of the second half of held-out episodes, where the task has begun to show. A
task's score is the best of its held-out sentences; R@1 is how often the true task wins.

Controls are classifiers fitted on the training episodes' task families. A model whose recipe
names that column (`data.task`, as tectum-tiny does) had the same labels: they say which
frames and sentences are positives of each other, and which paraphrases a sample may draw. Then
model and classifiers differ in what they read and how they are made, not in supervision.

Letters: n frames, F families.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.evaluation import gates
from tectum_train.evaluation.measuring.context import (
    Context,
    NothingToMeasure,
    in_batches,
    second_half,
)
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside
from tectum_train.evaluation.measuring.perceptron import classify_nonlinearly
from tectum_train.evaluation.measuring.pixels import flat_pixels
from tectum_train.evaluation.measuring.probes import Pca, classify

__all__ = [
    "asked_frames",
    "columns_of",
    "cosines",
    "embedded",
    "measure_retrieval",
    "sentences_held_out",
]

_TEST_STRIDE, _TRAIN_STRIDE = 3, 8
_COMPONENTS = 256


def measure_retrieval(context: Context) -> list[Measure]:
    """R@1 over all tasks, and within pairs of tasks that share a scene.

    Beside them R@1 by the first so many dimensions, for each truncation of the joint space.
    """
    test_at = asked_frames(context.test)
    train_at = second_half(context.train)[::_TRAIN_STRIDE]
    if not len(test_at) or not len(train_at):
        raise NothingToMeasure("no episode has a second half")
    true = columns_of(context, context.test)[test_at]
    vectors = _vectors(context, test_at)
    model = _by_sentences(context, *vectors)
    controls = _classifiers(context, train_at, test_at)

    families, partners = context.world.families, _partners(context)
    episode, own = context.test.episode[test_at], _told(model, true)
    whole, errors = beside(own, {n: _told(scores, true) for n, scores in controls.items()}, episode)
    value, fewest = float(own.mean()), _fewest_episodes(context)
    few = "≥" if gates.enough_taught(fewest) else "only"
    taught = f"; {few} {fewest} training episodes a task"
    measures = [
        Measure(
            "frame → task, R@1",
            value,
            {**whole, "chance": 1 / len(families)},
            gates.TASK_RULE,
            gates.task_is_known(value, fewest),
            context.counted(test_at, "frames") + taught,
            errors=errors,
        )
    ]
    paired = np.isin(true, list(partners))
    if paired.any():
        own = _told_of_two(model, true, partners)
        others = {n: _told_of_two(scores, true, partners) for n, scores in controls.items()}
        within, errors = beside(own, others, episode[paired])
        pairs = float(own.mean())
        measures.append(
            Measure(
                "frame → task within same-scene pairs, R@1",
                pairs,
                {**within, "chance": 0.5},
                gates.PAIR_RULE,
                gates.partner_is_told_apart(pairs, fewest),
                context.counted(test_at[paired], "frames") + taught,
                errors=errors,
            )
        )
    return [*measures, *_by_fewer_dimensions(context, vectors, _told(model, true), test_at)]


def _by_fewer_dimensions(
    context: Context,
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]],
    own: NDArray[np.float64],
    test_at: NDArray[np.int64],
) -> list[Measure]:
    """R@1 over all tasks by the first so many dimensions of frames' and sentences' vectors.

    Args:
        context: what is measured.
        vectors: float32[n, J] and float32[S, J].
        own: float64[n], whether all dimensions tell the true task.
        test_at: int64[n], the frames.
    """
    measures, true = list[Measure](), columns_of(context, context.test)[test_at]
    for width in _truncations(context):
        shorter = (_first(one, width) for one in vectors)
        found = _told(_by_sentences(context, *shorter), true)
        controls, errors = beside(found, {"all of them": own}, context.test.episode[test_at])
        name = f"frame → task by {width} of {vectors[0].shape[1]} dimensions, R@1"
        on = context.counted(test_at, "frames")
        measures.append(Measure(name, float(found.mean()), controls, on=on, errors=errors))
    return measures


def asked_frames(samples: Samples) -> NDArray[np.int64]:
    """Every third of those of second halves."""
    return second_half(samples)[::_TEST_STRIDE]


def embedded(
    predictor: Predictor, samples: Samples, at: NDArray[np.int64], texts: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32[n, J] and float32[S, J], frames and texts in the joint space."""
    images = in_batches(lambda f: predictor.embed_images(f, "joint"), samples.frames, at)
    return images, predictor.embed_texts(texts)


def cosines(images: NDArray[np.float32], texts: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n, S], how near each frame and each text lie: float32[n, J] and float32[S, J]."""
    return (images @ texts.T).astype(np.float64)


def sentences_held_out(context: Context) -> list[tuple[str, int]]:
    """Each sentence never trained on, and its family's column.

    Raises:
        NothingToMeasure: a family has none.
    """
    found = list[tuple[str, int]]()
    for column, family in enumerate(sorted(context.world.families, key=lambda one: one.index)):
        held_out = context.world.sentences(family.name, held_out=True)
        if not held_out:
            raise NothingToMeasure(f"meta/world.json holds no sentence of {family.name!r} out")
        found += [(text, column) for text in held_out]
    return found


def _indices(context: Context) -> list[int]:
    """Of the families, in the order of the scores' columns; there may be gaps between them."""
    return sorted(family.index for family in context.world.families)


def columns_of(context: Context, samples: Samples) -> NDArray[np.int64]:
    """[N], the scores' column of each frame's family."""
    return np.searchsorted(_indices(context), context.families(samples))


def _partners(context: Context) -> dict[int, int]:
    """Columns of families that share a scene, both ways."""
    column = {index: place for place, index in enumerate(_indices(context))}
    return {column[one]: column[other] for one, other in context.world.partners.items()}


def _truncations(context: Context) -> tuple[int, ...]:
    joint = context.predictor.config.model.joint
    return () if joint is None else joint.truncations


def _first(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The first so many dimensions, as unit vectors."""
    shorter = vectors[:, :width]
    lengths = np.linalg.norm(shorter, axis=1, keepdims=True)
    return np.asarray(shorter / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def _vectors(
    context: Context, test_at: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32[n, J] and float32[S, J], of the frames and of the sentences held out."""
    return embedded(
        context.predictor, context.test, test_at, [text for text, _ in sentences_held_out(context)]
    )


def _by_sentences(
    context: Context, images: NDArray[np.float32], texts: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[n, families], each frame's cosine to the best of a family's sentences held out."""
    saying = [column for _, column in sentences_held_out(context)]
    scores = cosines(images, texts)
    told, columns = np.array(saying), range(len(context.world.families))
    return np.stack([scores[:, told == one].max(axis=1) for one in columns], axis=1)


def _classifiers(
    context: Context, train_at: NDArray[np.int64], test_at: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """[n, families] from each control: what pixels, a random network and the robot's state say."""
    labels, classes = columns_of(context, context.train)[train_at], len(context.world.families)
    episode = context.train.episode[train_at]
    train, test = context.train.frames, context.test.frames
    pixels = flat_pixels(train, train_at)
    components = Pca(pixels, _COMPONENTS)

    def untaught(frames: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.float32]:
        return in_batches(lambda f: context.twin.embed_images(f, "pooled"), frames, at)

    def linear(fitted: NDArray[np.floating], asked: NDArray[np.floating]) -> NDArray[np.float64]:
        return classify(fitted, labels, asked, episode, classes)

    known, asked = context.states(context.train)[train_at], context.states(context.test)[test_at]
    seed = context.seed_of("perceptron")
    return {
        "PCA-256 + logistic": linear(components(pixels), components(flat_pixels(test, test_at))),
        "random init + logistic": linear(untaught(train, train_at), untaught(test, test_at)),
        "proprioception + logistic": linear(_quadratic(known), _quadratic(asked)),
        "proprioception + MLP": classify_nonlinearly(known, labels, asked, episode, classes, seed),
    }


def _fewest_episodes(context: Context) -> int:
    """Episodes of the task that has the fewest of those that probes are fitted on."""
    first = np.flatnonzero(context.train.step == 0)
    families = context.families(context.train)[first]
    return min(int((families == family.index).sum()) for family in context.world.families)


def _told(scores: NDArray[np.float64], true: NDArray[np.int64]) -> NDArray[np.float64]:
    """[n], whether the true task is told."""
    return (scores.argmax(axis=1) == true).astype(np.float64)


def _told_of_two(
    scores: NDArray[np.float64], true: NDArray[np.int64], partners: dict[int, int]
) -> NDArray[np.float64]:
    """Whether the true task beats its partner, for each frame of tasks that have one."""
    rows = np.flatnonzero(np.isin(true, list(partners)))
    other = np.array([partners[int(family)] for family in true[rows]])
    return (scores[rows, true[rows]] > scores[rows, other]).astype(np.float64)


def _quadratic(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """The state and its products: position alone is not linear in the task."""
    products = states[:, :, None] * states[:, None, :]
    upper = np.triu_indices(states.shape[1])
    return np.concatenate([states, products[:, upper[0], upper[1]]], axis=1)
