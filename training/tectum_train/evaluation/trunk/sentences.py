"""Frames and sentences never trained on, each by the other: how far down the list is a right one?

Each text is asked once, however many tasks say it. A frame has several right sentences and a
sentence very many right frames, all that are of its task, so it is the first right one that counts.
As good is not better: whoever gives all the same score finds nothing first. Beside each number
stand what a shuffled list gives, exactly, and the same network with random weights.

Letters: n frames, S sentences; q queries, m things that are ranked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tectum_train.evaluation.measuring.context import Context, NothingToMeasure
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.trunk.retrieval import (
    asked_frames,
    columns_of,
    cosines,
    embedded,
    sentences_held_out,
)

__all__ = ["chances", "measure_sentences", "ranks"]

_FIRST = (1, 5, 10)
_TWIN = "random-init twin"


def measure_sentences(context: Context) -> list[Measure]:
    """R@1, R@5, R@10 and the median rank, of sentences by frames and of frames by sentences."""
    asked_at, told = asked_frames(context.test), dict[str, set[int]]()
    if not len(asked_at):
        raise NothingToMeasure("no episode has a second half")
    for text, column in sentences_held_out(context):
        told.setdefault(text, set()).add(column)
    true = columns_of(context, context.test)[asked_at]
    right = np.array([np.isin(true, list(columns)) for columns in told.values()]).T

    model, twin = (
        cosines(*embedded(predictor, context.test, asked_at, list(told)))
        for predictor in (context.predictor, context.twin)
    )
    on = f"{context.counted(asked_at, 'frames')}; {len(told)} sentences"
    # A sentence of a task that no held-out frame shows has no right answer.
    shown = right.any(axis=0)
    return [
        *_measured("frame → sentence", model, twin, right, on),
        *_measured("sentence → frame", model.T[shown], twin.T[shown], right.T[shown], on),
    ]


def _measured(
    what: str,
    model: NDArray[np.float64],
    twin: NDArray[np.float64],
    right: NDArray[np.bool_],
    on: str,
) -> list[Measure]:
    """From scores [q, m] of both, and which are right."""
    total = right.shape[1]
    own, others = ranks(model, right), ranks(twin, right)
    chance = chances(right.sum(axis=1), total)
    measures = [
        Measure(
            f"{what}, R@{first}",
            float((own <= first).mean()),
            {"chance": float(chance[first]), _TWIN: float((others <= first).mean())},
            on=on,
        )
        for first in _FIRST
        if first < total
    ]
    median = {"chance": int((chance >= 0.5).argmax()), _TWIN: float(np.median(others))}
    return [*measures, Measure(f"{what}, median rank", float(np.median(own)), median, on=on)]


def ranks(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[q], the place from 1 on of each query's first right one, behind wrong ones as good as it.

    Args:
        scores: float[q, m].
        right: bool[q, m], one at least in each row.
    """
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    # Not "at least as good": a score that is not a number is never found before any.
    return 1 + (~(scores < best) & ~right).sum(axis=1)


def chances(right: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """How often a shuffled list of so many has a right one among its first k, mean over queries.

    Args:
        right: int64[q], how many are right.
        total: m.

    Returns:
        float[m + 1], for k from 0 to m.
    """
    place = np.arange(total)
    # Of the places before k, none holds a right one: each is drawn from what is left.
    wrong = np.clip(total - right[:, None] - place, 0, None) / (total - place)
    missed = np.cumprod(np.concatenate([np.ones((len(right), 1)), wrong], axis=1), axis=1)
    return 1 - missed.mean(axis=0)
