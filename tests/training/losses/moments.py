"""Clips, moments and scores drawn by a seed, and what losses between them are, in NumPy loops."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tectum_train.losses.temporal import Negatives

__all__ = [
    "CLIPS", "HORIZONS", "LENGTH", "NEGATIVES", "WIDTH", "Arrays", "clips", "drawn", "episodes",
    "formula", "formula_foresight", "scores",
]  # fmt: skip

Whole = NDArray[np.int64]
Arrays = dict[str, Any]

NEGATIVES = get_args(Negatives)
CLIPS, LENGTH, HORIZONS, WIDTH = 6, 5, 3, 4


def clips(seed: int, count: int = CLIPS) -> Arrays:
    """Clips of which some end early, some stand still for a while, and some share an episode."""
    draw = np.random.default_rng(seed)
    ends = draw.integers(2, LENGTH + 1, count)
    pictures = draw.integers(0, 4, (count, LENGTH))  # equal where the picture is
    return {
        "predicted": draw.normal(size=(count, LENGTH, HORIZONS, WIDTH)),
        "features": draw.normal(size=(count, LENGTH, WIDTH)),
        "inside": np.arange(LENGTH)[None] < ends[:, None],
        "repeated": pictures[:, :, None] == pictures[:, None],
        "episode": draw.integers(0, max(2, count // 2), count),
    }


def episodes(seed: int, count: int = 6) -> Arrays:
    """Three moments each; of some, two are the same picture."""
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 4, (count, 3))
    return {
        "moments": draw.normal(size=(count, 3, WIDTH)),
        "repeated": pictures[:, :, None] == pictures[:, None],
        "episode": draw.integers(0, max(2, count // 2), count),
    }


def scores(seed: int, count: int = 6) -> Arrays:
    draw = np.random.default_rng(seed)
    counted = draw.random(count) < 0.8
    counted[0] = True
    return {
        "later": draw.normal(size=count),
        "earlier": draw.normal(size=count),
        "others": draw.normal(size=(count, count)),
        "repeated": draw.random(count) < 0.3,
        "task": draw.integers(0, max(2, count // 2), count),
        "counted": counted,
    }


# ---------------------------------------------------------------- the formulas, in NumPy


def formula_foresight(given_: Arrays, negatives: str) -> tuple[float, Whole]:
    """The loss, and the number of choices of each question, 0 where none is asked."""
    features, inside, episode = given_["features"], given_["inside"], given_["episode"]
    choices = np.zeros((len(features), LENGTH, HORIZONS), np.int64)
    means = []
    for horizon in range(1, HORIZONS + 1):
        losses = []
        for clip in range(len(features)):
            for now in range(LENGTH - horizon):
                wanted = now + horizon
                told = given_["predicted"][clip, now, horizon - 1]
                others = []
                for other in range(len(features)):
                    for moment in range(LENGTH):
                        own = other == clip
                        if own and negatives == "in_batch":
                            continue
                        if not own and negatives == "same_episode":
                            continue
                        if own and given_["repeated"][clip, wanted, moment]:
                            continue
                        if not own and episode[other] == episode[clip]:
                            continue
                        if inside[other, moment]:
                            others.append(told @ features[other, moment])
                if inside[clip, wanted] and others:
                    right = told @ features[clip, wanted]
                    losses.append(logsumexp([right, *others]) - right)
                    choices[clip, now, horizon - 1] = len(others) + 1
        if losses:
            means.append(np.mean(losses))
    return float(np.mean(means)) if means else 0.0, choices


def formula_time(given_: Arrays) -> float:
    moments, repeated, episode = given_["moments"], given_["repeated"], given_["episode"]
    losses = []
    for own, (first, middle, last) in enumerate(moments):
        for anchor, far, place, other_end in ((first, last, 0, 2), (last, first, 2, 0)):
            negatives = [
                -np.linalg.norm(anchor - one[place])
                for one, which in zip(moments, episode, strict=True)
                if which != episode[own]
            ]
            if not (repeated[own, 0, 2] or repeated[own, 1, other_end]):
                negatives.append(-np.linalg.norm(anchor - far))
            near = -np.linalg.norm(anchor - middle)
            if negatives:
                losses.append(logsumexp([near, *negatives]) - near)
    return float(np.mean(losses)) if losses else 0.0


def formula_language(given_: Arrays) -> float:
    losses = []
    for own, later in enumerate(given_["later"]):
        negatives = [
            score
            for score, task in zip(given_["others"][own], given_["task"], strict=True)
            if task != given_["task"][own]
        ]
        if not given_["repeated"][own]:
            negatives.append(given_["earlier"][own])
        if negatives and given_["counted"][own]:
            losses.append(logsumexp([later, *negatives]) - later)
    return float(np.mean(losses)) if losses else 0.0


def formula(name: str, given_: Arrays) -> float:
    match name:
        case "time":
            return formula_time(given_)
        case "language":
            return formula_language(given_)
        case _:
            return formula_foresight(given_, name)[0]


def drawn(name: str, seed: int, count: int = 6) -> Arrays:
    match name:
        case "time":
            return episodes(seed, count)
        case "language":
            return scores(seed, count)
        case _:
            return clips(seed, count)
