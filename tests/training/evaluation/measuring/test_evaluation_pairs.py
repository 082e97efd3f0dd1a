"""Pairs of frames: one interval apart within an episode, displacement in the camera's frame."""

from __future__ import annotations

import numpy as np
import pytest
from tests.training.evaluation.hand import numbers, wandering
from tests.training.evaluation.scene import context, recorded

from tectum_train.evaluation.measuring.pairs import Pairs, draw_pairs


def test_displacement_is_in_the_cameras_frame() -> None:
    # A camera that looks along the world's x, its right along the world's -y, its down along -z.
    extrinsics = np.array([[0, -1, 0, 9], [0, 0, -1, 9], [1, 0, 0, 9], [0, 0, 0, 1]], np.float32)
    hand = np.array([[0, 0, 0, 1], [1, 2, 3, 1]], np.float32)
    samples = recorded(
        [2], {"state": hand, "camera.extrinsics": np.tile(extrinsics.reshape(-1), (2, 1))}
    )

    pairs = draw_pairs(context(samples, samples, pair_steps=1), samples, 10, "")

    assert pairs.moved.tolist() == [[-2, -3, 1]]  # right, down, away


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_every_pair_is_one_interval_apart_within_its_episode(gap: int) -> None:
    samples = wandering()

    pairs = draw_pairs(context(samples, samples, pair_steps=gap), samples, 1000, "")

    earlier, later = numbers(pairs.earlier), numbers(pairs.later)
    assert np.array_equal(later - earlier, np.full(len(earlier), gap))
    assert np.array_equal(samples.episode[earlier], samples.episode[later])
    assert np.array_equal(pairs.episode, samples.episode[earlier])
    assert sorted(earlier) == [i for i in range(len(samples)) if i + gap <= samples.last[i]]


def test_each_pair_has_its_own_displacement_as_the_camera_stood_at_its_earlier_frame() -> None:
    samples = wandering()
    hand = samples.column("state")[:, :3].astype(np.float64)
    cameras = samples.column("camera.extrinsics").reshape(-1, 4, 4)[:, :3, :3]

    pairs = draw_pairs(context(samples, samples), samples, 1000, "")

    for earlier, later, moved in zip(
        numbers(pairs.earlier), numbers(pairs.later), pairs.moved, strict=True
    ):
        assert np.allclose(moved, cameras[earlier] @ (hand[later] - hand[earlier]), atol=1e-4)
        assert not np.allclose(cameras[earlier], cameras[later], atol=0.1)


def test_pairs_are_so_many_and_drawn_alike_by_equal_seeds() -> None:
    samples = wandering()
    given_ = context(samples, samples, seed=4)

    one, two, other = (draw_pairs(given_, samples, 12, stream) for stream in ("one", "one", "two"))

    assert len(one.moved) == 12
    assert np.array_equal(one.earlier, two.earlier)
    assert not np.array_equal(one.earlier, other.earlier)


def test_pairs_are_plain_arrays() -> None:
    samples = wandering()

    pairs: Pairs = draw_pairs(context(samples, samples), samples, 5, "")

    assert pairs.earlier.dtype == np.uint8
    assert pairs.moved.shape == (5, 3)
