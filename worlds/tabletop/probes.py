"""How much of the hand's position simple means recover: the floor under every representation.

Two probes, both ridge regressions fitted on the training set and measured on held-out layouts: raw
pixels through a principal component analysis, and no picture at all, only the task's label and the
time since the episode began. A representation is worth something above the greater of the two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from tabletop.dataset import Dataset
from tabletop.families import FAMILIES

# N frames looked at, D numbers per frame, S side of a picture

COMPONENTS = 256
SIDE = 48
"""Pictures are averaged down to this side, pixels: the components see nothing finer."""
STRIDE = 3
"""Every third frame: neighbours are nearly the same."""
KNOTS = 16
"""Points of time between which the position may bend, per task."""
_STRENGTHS = np.logspace(-4, 4, 17)
_FOLDS = 4


@dataclass(frozen=True, slots=True)
class Samples:
    """The frames that a probe sees."""

    pixels: NDArray[np.float32]
    """float32[N, SIDE·SIDE·3] in [0, 1]."""
    families: NDArray[np.int64]
    """int64[N]."""
    layouts: NDArray[np.int64]
    """int64[N]: family and layout in one number."""
    times: NDArray[np.float32]
    """float32[N], seconds since the episode began."""
    hands: NDArray[np.float32]
    """float32[N, 3], metres, world frame."""


def sample(dataset: Dataset) -> Samples:
    """Take every STRIDE-th frame of each episode."""
    pixels, rows = [], []
    for extent, film in zip(dataset.extents(), dataset.films(), strict=True):
        pixels.append(_shrunk(film[::STRIDE]))
        rows.append(np.arange(extent.begin, extent.end, STRIDE))
    chosen = np.concatenate(rows)
    families = dataset.column("task_family")[chosen]
    return Samples(
        pixels=np.concatenate(pixels),
        families=families,
        layouts=families * 1000 + dataset.column("layout")[chosen],
        times=dataset.column("timestamp")[chosen],
        hands=dataset.column("observation.state")[chosen, :3],
    )


def probe_pixels(train: Samples, test: Samples) -> NDArray[np.float64]:
    """R² of the hand's x, y, z from principal components of the pixels, float64[3]."""
    components = min(COMPONENTS, len(train.pixels) // 2)
    analysis = PCA(components, svd_solver="randomized", random_state=0)
    known = analysis.fit_transform(train.pixels)
    scale = known[:, 0].std()  # keeps the ridge's strengths comparable between worlds
    return _score(train, known / scale, test, analysis.transform(test.pixels) / scale)


def probe_label_and_time(train: Samples, test: Samples) -> NDArray[np.float64]:
    """R² of the hand's x, y, z from the task's label and elapsed time, float64[3]."""
    end = float(train.times.max())
    return _score(train, _schedule(train, end), test, _schedule(test, end))


def _schedule(samples: Samples, end: float) -> NDArray[np.float64]:
    """Per task a piecewise linear function of time, float64[N, tasks·KNOTS]."""
    knots = np.linspace(0, end, KNOTS)
    distance = np.abs(np.minimum(samples.times, end)[:, None] - knots) / (knots[1] - knots[0])
    hats = np.maximum(1 - distance, 0)
    labels = np.eye(len(FAMILIES))[samples.families]
    schedule: NDArray[np.float64] = labels[:, :, None] * hats[:, None, :]
    return schedule.reshape(len(hats), -1)


def _score(
    train: Samples, known: NDArray[np.float64], test: Samples, asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit on all of the training set with the strength that did best across its own layouts."""
    folds = GroupKFold(min(_FOLDS, len(np.unique(train.layouts))))
    trials = np.zeros(len(_STRENGTHS))
    for fit, hold in folds.split(known, groups=train.layouts):
        for number, strength in enumerate(_STRENGTHS * len(fit) / 1000):
            guess = Ridge(strength).fit(known[fit], train.hands[fit]).predict(known[hold])
            trials[number] += r2_score(train.hands[hold], guess)
    best = _STRENGTHS[trials.argmax()] * len(known) / 1000
    guess = Ridge(best).fit(known, train.hands).predict(asked)
    scores: NDArray[np.float64] = r2_score(test.hands, guess, multioutput="raw_values")
    return scores


def _shrunk(film: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Average blocks of pixels down to about SIDE, float32[N, D]."""
    block = max(film.shape[1] // SIDE, 1)
    side = film.shape[1] // block
    cut = film[:, : side * block, : side * block].astype(np.float32) / 255
    blocks = cut.reshape(len(film), side, block, side, block, 3)
    means: NDArray[np.float32] = blocks.mean(axis=(2, 4))
    return means.reshape(len(film), -1)
