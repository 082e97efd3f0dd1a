"""Pictures to ask with: smooth like photographs, so that a JPEG of one is as large as of those."""

from __future__ import annotations

import io
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tectum_cli.extras import needs

__all__ = ["ENCODINGS", "FILES", "Picture", "drawn", "encoded", "sides"]

FILES = ("jpeg", "png", "webp")
ENCODINGS = ("raw", *FILES)
Picture: TypeAlias = NDArray[np.uint8] | bytes
_LONGEST = 8192
"""Pixels of a side."""
_QUALITY = 90
_GRAIN = 6.0
"""Standard deviation of a camera's noise, of 255."""


def sides(text: str) -> tuple[int, int]:
    """Read `640x480`, or `224` for a square: width and height.

    Raises:
        ValueError: says what is allowed.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) not in (1, 2) or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"found {text!r}; allowed: WIDTHxHEIGHT, or the side of a square")
    width, height = int(parts[0]), int(parts[-1])
    if not all(1 <= side <= _LONGEST for side in (width, height)):
        raise ValueError(f"found {text}; allowed: sides of 1 to {_LONGEST}")
    return width, height


def drawn(width: int, height: int, count: int, seed: int) -> list[NDArray[np.uint8]]:
    """So many different pictures: uint8[height, width, 3]."""
    dice = np.random.default_rng(seed)
    across = np.linspace(0, 2 * np.pi, width, dtype=np.float32)
    down = np.linspace(0, 2 * np.pi, height, dtype=np.float32)[:, None]
    found = list[NDArray[np.uint8]]()
    for _ in range(count):
        waves = np.zeros((height, width, 3), np.float32)
        for octave in (1, 2, 4, 8, 16):
            turns, phases = dice.uniform(-octave, octave, (2, 3)), dice.uniform(0, 2 * np.pi, 3)
            angle = across[..., None] * turns[0] + down[..., None] * turns[1] + phases
            waves += np.sin(angle, dtype=np.float32) * (40 / octave**0.5)
        noisy = waves + 128 + dice.normal(0, _GRAIN, waves.shape)
        found.append(noisy.clip(0, 255).astype(np.uint8))
    return found


def encoded(pixels: NDArray[np.uint8], encoding: str) -> Picture:
    """As it travels: the pixels themselves, or a file's bytes (JPEG and WebP at quality 90)."""
    if encoding == "raw":
        return pixels
    with needs("cli"):
        from PIL import Image
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoding.upper(), quality=_QUALITY)
    return file.getvalue()
