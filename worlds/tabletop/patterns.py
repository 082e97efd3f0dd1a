"""Surfaces drawn as pixels: checkers, stripes, blotches, rings and dots in two colours.

Pure numpy. Pictures are square and made of few large cells, so that they survive a 96-pixel camera.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabletop.nuisances import Colour, Surface

# S side of the texture, pixels

_WHITE = 230.0  # leaves room above for the texture's own highlights


def paint(surface: Surface, size: int) -> NDArray[np.uint8]:
    """The texture of a surface, uint8[S, S, 3].

    Raises:
        ValueError: the pattern is `original`, which only the simulator has, or unknown.
    """
    random = np.random.default_rng(surface.seed)
    mask: NDArray[Any]
    if surface.pattern == "plain":
        mask = np.zeros((size, size))
    elif surface.pattern == "checker":
        rows, columns = np.indices((size, size)) * int(random.integers(3, 9)) // size
        mask = (rows + columns) % 2
    elif surface.pattern == "stripes":
        axis = np.indices((size, size))[int(random.integers(2))]
        mask = axis * int(random.integers(4, 16)) // size % 2
    elif surface.pattern == "blotches":
        cells = random.random((8, 8))
        mask = np.kron(cells, np.ones((size // 8, size // 8)))
        mask = np.pad(mask, (0, size - mask.shape[0]), mode="edge")
    elif surface.pattern == "rings":
        rows, columns = np.indices((size, size)) - size * random.uniform(0, 1, (2, 1, 1))
        mask = np.hypot(rows, columns) * int(random.integers(6, 14)) // size % 2
    elif surface.pattern == "dots":
        across = np.indices((size, size)) * int(random.integers(3, 8)) / size % 1 - 0.5
        mask = np.hypot(*across) < random.uniform(0.25, 0.4)
    else:
        raise ValueError(
            f"cannot paint pattern {surface.pattern!r}; allowed: plain, checker, stripes, "
            "blotches, rings, dots"
        )
    return _blend(surface.first, surface.second, mask)


def gradient(low: Colour, high: Colour, height: int, width: int) -> NDArray[np.uint8]:
    """A fade from `high` at the top to `low` at the bottom, uint8[height, width, 3]."""
    mask = np.repeat(np.linspace(1.0, 0.0, height)[:, None], width, axis=1)
    return _blend(low, high, mask)


def whitened(texture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A texture whose mean is nearly white, so that a tint decides its colour.

    Args:
        texture: uint8[S, S, 3].
    """
    means = texture.mean(axis=(0, 1))
    pixels: NDArray[np.uint8] = np.minimum(texture * (_WHITE / means), 255).astype(np.uint8)
    return pixels


def _blend(first: Colour, second: Colour, mask: NDArray[Any]) -> NDArray[np.uint8]:
    """`first` where the mask is 0, `second` where it is 1."""
    colours = np.array(first) + mask[..., None] * (np.array(second) - np.array(first))
    pixels: NDArray[np.uint8] = np.rint(colours * 255).astype(np.uint8)
    return pixels
