"""Pictures brought to a model's size on the robot, as the worker would bring them there.

The same weights in the same order, in float32, rounded once: what a worker's own resizing makes of
the picture, but for a rounding of the last bit here and there. Needs numpy and nothing else.

Letters: H×W source pixels, S the model's side, R the side that is sent.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tectum.models import ImageInput
from tectum.vocabulary import Interpolation, ResizeMode

Weights = tuple[slice, NDArray[np.float32]]
"""The n source pixels that one axis is made of, and float32[R, n]: their shares in each of its
own."""


def resized(pixels: NDArray[np.uint8], to: ImageInput) -> NDArray[np.uint8]:
    """uint8[H, W, 3] to uint8[R, R, 3], which the worker resamples no more.

    R is S, or what the shorter side is brought to where the worker cuts out the centre: its own
    centre is the whole picture's. A picture that already fits is not touched.
    """
    height, width, _ = pixels.shape
    rows, columns = _target(height, width, to)
    side = to.resize_to if to.resize_mode is ResizeMode.CENTER_CROP else to.size
    top, left = ((whole - to.size) // 2 - (side - to.size) // 2 for whole in (rows, columns))
    if (height, width) == (rows, columns):
        return pixels[top : top + side, left : left + side]
    cubic = to.interpolation is Interpolation.BICUBIC
    used_rows, down = _weights(height, rows, top, side, cubic)
    used_columns, across = _weights(width, columns, left, side, cubic)
    used = pixels[used_rows, used_columns].astype(np.float32)
    # Two products of plain matrices: rows first, then columns, of all three channels at once.
    brought = (down @ used.reshape(len(used), -1)).reshape(side, -1, 3)
    turned = np.ascontiguousarray(brought.transpose(1, 0, 2)).reshape(-1, side * 3)
    whole = (across @ turned).reshape(side, side, 3).transpose(1, 0, 2)
    return np.clip(np.rint(whole), 0, 255).astype(np.uint8)


def _target(height: int, width: int, to: ImageInput) -> tuple[int, int]:
    """Height and width of the whole resampled picture, of which a part is kept."""
    if to.resize_mode is not ResizeMode.CENTER_CROP:
        return to.size, to.size
    shorter = min(height, width)
    return height * to.resize_to // shorter, width * to.resize_to // shorter


@lru_cache(maxsize=8)
def _weights(source: int, target: int, first: int, count: int, cubic: bool) -> Weights:
    """How a part of one axis comes from its source, antialiased where it shrinks."""
    scale = source / target
    stretch = max(scale, 1.0)
    middles = scale * (np.arange(first, first + count) + 0.5)
    reach = (2 if cubic else 1) * stretch
    begin = max(int(middles[0] - reach), 0)
    end = min(int(middles[-1] + reach) + 1, source)
    distances = np.abs(np.arange(begin, end) + 0.5 - middles[:, None]) / stretch
    shares = _cubic(distances) if cubic else np.clip(1 - distances, 0, None)
    return slice(begin, end), (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bicubic kernel with a = -0.5 (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    within = (1.5 * distance - 2.5) * distance**2 + 1
    beyond = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, within, np.where(distance < 2, beyond, 0.0))
