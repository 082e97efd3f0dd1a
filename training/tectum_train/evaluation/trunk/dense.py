"""Where the hand is, by what each patch's own token says: a linear probe of dense features.

A pooled vector hides what a trunk knows of places, which is what masked objectives learn. So every
token is asked by itself, by one linear probe for all places, whether the hand is in its patch; the
picture's answer is the patch that says so loudest. It counts if it is the hand's or touches it: the
hand is about as large as a patch, and a point of it may lie just beyond an edge. The area under an
ROC curve would say less, for most patches are easy to rule out wherever the hand is.

Every probe is also told how often the hand is in each place, so that none is ahead of another by
knowing where its patch lies.

Letters: n pictures, S their side, g patches along a side, N = g² in all, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tectum_core.predictor import Predictor
from tectum_train.data.samples import Samples
from tectum_train.evaluation import gates, gates_trunk
from tectum_train.evaluation.measuring.context import Context, NothingToMeasure, in_batches
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.paired import beside
from tectum_train.evaluation.measuring.probes import Pca, fit_ridge

__all__ = ["hand_pixels", "measure_dense_features", "patch_surroundings"]

_FITTED, _ASKED, _PATCHES = 1024, 1024, 32
"""Pictures, and how many patches of each a probe is fitted on, the hand's among them."""
_FLOATS = 2**26
"""Of all tokens that are read at a time; large trunks are asked about fewer pictures."""
_COMPONENTS, _SIDE, _PCA = 128, 8, 12_000
"""Of a patch's surroundings, along a side of a patch that they are shrunk to, and patches of which
components are found."""
_AXES, _MATRIX = 3, 16


@dataclass(frozen=True, slots=True)
class _Shown:
    """Frames that show the hand, and where."""

    samples: Samples
    index: NDArray[np.int64]
    """[n]."""
    patch: NDArray[np.int64]
    """[n], the patch with the hand, row by row."""

    @property
    def episode(self) -> NDArray[np.int64]:
        """[n]."""
        return self.samples.episode[self.index]


Read = Callable[[_Shown], NDArray[np.float32]]
"""Features of every patch: float32[n, N, d]."""


def measure_dense_features(context: Context) -> list[Measure]:
    """How often the trunk's tokens tell the hand's patch, beside those that have learnt nothing.

    Raises:
        NothingToMeasure: no hand can be placed, or none is in sight.
    """
    config = context.predictor.model.vision.config
    most = _FLOATS // (config.patches * config.transformer.width)
    fitted = _shown(context, context.train, min(_FITTED, most), config.grid)
    asked = _shown(context, context.test, min(_ASKED, most), config.grid)
    draw = context.generator("patches beside the hand's")

    count = config.patches
    often = np.bincount(fitted.patch, minlength=count) / len(fitted.patch)
    taken = _some(fitted.patch, count, draw)

    def told(read: Read) -> NDArray[np.float64]:
        known, rows = read(fitted), np.arange(len(taken))[:, None]
        features = _placed(known, often)[rows, taken]
        hand = (taken == fitted.patch[:, None]).astype(np.float64)
        scores = fit_ridge(
            features.reshape(-1, features.shape[-1]),
            hand.reshape(-1, 1),
            _placed(read(asked), often).reshape(-1, features.shape[-1]),
            np.repeat(fitted.episode, taken.shape[1]),
        )
        best = scores.reshape(-1, count).argmax(axis=1)
        return near(best)

    def near(patch: NDArray[np.int64]) -> NDArray[np.float64]:
        return _beside(patch, asked.patch, config.grid).astype(np.float64)

    own = told(_tokens(context.predictor))
    others = {
        gates.RANDOM_INIT: np.mean([told(_tokens(twin)) for twin in context.twins], axis=0),
        gates_trunk.SURROUNDINGS: told(_surroundings(fitted, config.grid)),
        gates_trunk.PLACE: near(np.full_like(asked.patch, often.argmax())),
    }
    controls, errors = beside(own, others, asked.episode)
    value = float(own.mean())
    return [
        Measure(
            "frozen trunk → hand's patch or one beside it",
            value,
            controls,
            gates_trunk.DENSE_RULE,
            gates_trunk.patches_tell(value, controls, errors),
            context.counted(asked.index, "frames"),
            errors=errors,
        )
    ]


def hand_pixels(
    hand: NDArray[np.floating], intrinsics: NDArray[np.floating], extrinsics: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Where points appear: [n, 2], to the right and down, the first pixel's middle at 0.

    Args:
        hand: [n, 3], metres, in the world's frame.
        intrinsics: [n, 4], fx, fy, cx, cy.
        extrinsics: [n, 4, 4], world to camera: right, down, away.

    Returns:
        Nowhere (NaN) for a point that is not before the camera.
    """
    rotation, origin = extrinsics[:, :3, :3], extrinsics[:, :3, 3]
    seen = np.einsum("nij,nj->ni", rotation, hand).astype(np.float64) + origin
    depth = np.where(seen[:, 2] > 0, seen[:, 2], np.nan)[:, None]
    return np.asarray(intrinsics[:, :2] * seen[:, :2] / depth + intrinsics[:, 2:], np.float64)


def _shown(context: Context, samples: Samples, most: int, grid: int) -> _Shown:
    """So many frames, evenly over the data set, and of them those with the hand in sight."""
    columns, side = context.columns, samples.frames.shape[1]
    index = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(np.int64)
    hand = samples.numbers(columns.state, index)
    camera = samples.numbers(columns.extrinsics, index)
    if hand.shape[1] < _AXES or camera.shape[1] != _MATRIX:
        raise NothingToMeasure(
            f"{columns.state} has {hand.shape[1]} numbers and {columns.extrinsics} "
            f"{camera.shape[1]}, where a place and a 4×4 matrix are wanted"
        )
    intrinsics = samples.intrinsics(columns.intrinsics, index)
    pixels = hand_pixels(hand[:, :_AXES], intrinsics, camera.reshape(-1, 4, 4))
    across, down = ((pixels + 0.5) / side).T
    inside = (across >= 0) & (across < 1) & (down >= 0) & (down < 1)  # NaN is nowhere
    if not inside.any():
        raise NothingToMeasure("no frame shows the hand")
    row, column = ((grid * part[inside]).astype(np.int64) for part in (down, across))
    return _Shown(samples, index[inside], row * grid + column)


def _some(hand: NDArray[np.int64], count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """The hand's patch [n] and others of the same picture, drawn: [n, patches]."""
    others = draw.random((len(hand), count))
    others[np.arange(len(hand)), hand] = -1  # comes first
    return others.argsort(axis=1)[:, :_PATCHES]


def _placed(features: NDArray[np.float32], often: NDArray[np.float64]) -> NDArray[np.float32]:
    """With how often the hand is in each place: [n, N, d] to [n, N, d + 1]."""
    shares = np.broadcast_to(often.astype(np.float32)[None, :, None], (*features.shape[:2], 1))
    return np.concatenate([features, shares], axis=2)


def _beside(patch: NDArray[np.int64], other: NDArray[np.int64], grid: int) -> NDArray[np.bool_]:
    """Whether two patches are one or touch, if only by a corner."""
    down, across = (
        np.abs(a - b) for a, b in zip(divmod(patch, grid), divmod(other, grid), strict=True)
    )
    return (down <= 1) & (across <= 1)


def _tokens(predictor: Predictor) -> Read:
    def read(shown: _Shown) -> NDArray[np.float32]:
        def embed(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return predictor.embed_images(frames, "tokens")

        return in_batches(embed, shown.samples.frames, shown.index)

    return read


def _surroundings(fitted: _Shown, grid: int) -> Read:
    """Principal components of each patch's pixels and those of the eight about it."""
    frames, count = fitted.samples.frames, min(len(fitted.index), max(1, _PCA // grid**2))
    some = fitted.index[np.linspace(0, len(fitted.index) - 1, count).astype(np.int64)]
    pixels = patch_surroundings(frames[some], grid)
    components = Pca(pixels.reshape(-1, pixels.shape[2]), _COMPONENTS)

    def placed(some: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        pixels = patch_surroundings(np.stack(some), grid)
        found = components(pixels.reshape(-1, pixels.shape[2])).astype(np.float32)
        return found.reshape(len(some), grid**2, -1)

    return lambda shown: in_batches(placed, shown.samples.frames, shown.index)


def patch_surroundings(frames: NDArray[np.uint8], grid: int) -> NDArray[np.float32]:
    """Pixels of each patch and its neighbours, edges repeated: float32[n, N, d], from 0 to 1.

    Args:
        frames: uint8[n, S, S, 3]; patches of more than 8 pixels a side are averaged down to that.
        grid: patches along a side.
    """
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    side = min(frames.shape[1] // grid, _SIDE)
    if side * grid != frames.shape[1]:
        pixels = F.interpolate(pixels, (side * grid, side * grid), mode="area")
    around = F.pad(pixels, (side,) * 4, mode="replicate")
    return F.unfold(around, 3 * side, stride=side).transpose(1, 2).numpy()
