"""Data sets of a hand that wanders: each frame shows its own number and where the hand is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tests.training.evaluation.scene import recorded

from tectum_train.data.samples import Samples

__all__ = ["numbers", "scenes", "wandering"]

LENGTHS = (9, 2, 30, 14)


def wandering(lengths: tuple[int, ...] = LENGTHS, seed: int = 0, turned: bool = True) -> Samples:
    """A hand that wanders, before a camera that is turned about from frame to frame.

    A frame's first pixels are its own number and the hand's place.
    """
    draw = np.random.default_rng(seed)
    total = sum(lengths)
    hand = np.cumsum(draw.integers(-4, 5, (total, 3)), axis=0).astype(np.float32)
    cameras = np.stack([_camera(draw if turned else None) for _ in range(total)])
    frames = np.zeros((total, 2, 2, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(total)
    frames[:, 1, 1] = (hand + 128).astype(np.uint8)
    state = np.hstack([hand, np.ones((total, 1), np.float32)])
    return recorded(
        lengths, {"state": state, "camera.extrinsics": cameras.reshape(total, 16)}, frames
    )


def _camera(draw: np.random.Generator | None) -> NDArray[np.float32]:
    """A world-to-camera matrix: a rotation, and a shift that no displacement may show."""
    matrix = np.eye(4)
    if draw is not None:
        turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
        matrix[:3, :3] = turn * np.sign(np.linalg.det(turn))
    matrix[:3, 3] = (5, -6, 7)
    return matrix.astype(np.float32)


def numbers(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Which frames these are, [n]."""
    return frames[:, 0, 0, 0].astype(np.int64)


def scenes() -> tuple[Samples, Samples]:
    """Training and held-out episodes of the same kind, all before one camera that is not turned."""
    train, test = (wandering((12,) * 25, seed, turned=False) for seed in (1, 2))
    return train, test
