"""Dense features: where the hand appears, what is asked of each patch, and what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.evaluation.scene import context, recorded

from tabletop.camera import View, extrinsics, intrinsics, project  # type: ignore[import-not-found]
from tectum_train.data.samples import Samples
from tectum_train.evaluation.measuring.context import Columns, NothingToMeasure
from tectum_train.evaluation.trunk import dense
from tectum_train.evaluation.trunk.dense import (
    hand_pixels,
    measure_dense_features,
    patch_surroundings,
)

GRID, SIZE = 6, 4
SIDE, LENGTH, WIDTH = GRID * SIZE, 16, 1

# ---------------------------------------------------------------- where the hand appears


@given(
    st.floats(-180, 180), st.floats(-80, -5), st.floats(0.5, 2),
    st.tuples(*[st.floats(-0.2, 0.2)] * 3),
)  # fmt: skip
def test_the_hand_appears_where_the_worlds_own_camera_puts_it(
    azimuth: float, elevation: float, distance: float, place: tuple[float, float, float]
) -> None:
    hand = np.array([place])
    matrix = extrinsics(View((0.0, 0.0, 0.0), distance, azimuth, elevation))
    camera = intrinsics(64, 50.0)

    found = hand_pixels(hand, camera[None], matrix[None])

    assert np.allclose(found, project(hand, camera, matrix)[0])


def test_behind_the_camera_is_nowhere() -> None:
    found = hand_pixels(np.array([[0.0, 0.0, -1.0]]), np.ones((1, 4)), np.eye(4)[None])

    assert np.isnan(found).all()


# ---------------------------------------------------------------- what is asked


def scene(episodes: int, seed: int, *, away: float = 1.0) -> Samples:
    """Noise, in it one grey patch where the hand is, seen from another side in each episode.

    Metres are patches: a hand at (0, 0) of a camera at its origin is in the picture's middle.
    """
    draw = np.random.default_rng(seed)
    total = episodes * LENGTH
    patch = draw.integers(GRID, size=(total, 2))  # right, down
    shift = np.repeat(draw.normal(size=(episodes, 2)), LENGTH, axis=0)
    inside = patch + draw.uniform(0.05, 0.95, (total, 2)) - GRID / 2
    matrix = np.tile(np.eye(4), (total, 1, 1))
    matrix[:, :2, 3] = shift
    frames = draw.integers(0, 256, (total, SIDE, SIDE, 3), dtype=np.uint8)
    for frame, (column, row) in zip(frames, patch, strict=True):
        frame[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE] = 128
    middle = (SIDE - 1) / 2
    columns = {
        "state": np.column_stack([inside - shift, np.full(total, away), draw.normal(size=total)]),
        "camera.extrinsics": matrix.reshape(total, 16),
        "camera.intrinsics": np.tile([SIZE, SIZE, middle, middle], (total, 1)),
    }
    return recorded([LENGTH] * episodes, columns, frames)


def seeing(reach: float) -> Any:
    """A trunk whose tokens say how flat their own patch is, or the one so many to the right."""

    def embed(frames: Sequence[NDArray[np.uint8]], vector: str) -> NDArray[np.float32]:
        assert vector == "tokens"
        patches = np.stack(frames).reshape(len(frames), GRID, SIZE, GRID, SIZE, 3)
        spread = np.roll(patches.std(axis=(2, 4, 5)), -int(reach), axis=2)
        return np.asarray(spread.reshape(len(frames), GRID * GRID, 1), np.float32)

    stack = SimpleNamespace(width=WIDTH)
    shape = SimpleNamespace(grid=GRID, patches=GRID**2, transformer=stack)
    model = SimpleNamespace(vision=SimpleNamespace(config=shape))
    return SimpleNamespace(embed_images=embed, model=model)


def measured(reach: float, **changes: Any) -> Any:
    train, test = scene(24, 0, **changes), scene(6, 1, **changes)
    (found,) = measure_dense_features(context(train, test, predictor=seeing(reach), twin=seeing(3)))
    return found


def test_tokens_that_know_whether_the_hand_is_theirs_tell_where_it_is() -> None:
    found = measured(0)

    assert found.value == 1.0
    assert found.passed is True
    assert found.controls.keys() == {
        "random init", "PCA-128 of 3×3 patches", "its commonest place",
    }  # fmt: skip
    assert found.controls["random init"] < 0.5
    assert 0.05 < found.controls["its commonest place"] < 0.5
    assert found.on == "96 frames of 6 episodes"


def test_random_weights_tell_what_their_draws_tell_in_the_mean() -> None:
    train, test = scene(6, 0), scene(3, 1)

    def told(*reaches: float) -> float:
        twins = tuple(seeing(reach) for reach in reaches)
        (found,) = measure_dense_features(context(train, test, predictor=seeing(0), twins=twins))
        return float(found.controls["random init"])

    assert told(3) < told(0) == 1.0
    assert told(3, 0) == pytest.approx((told(3) + told(0)) / 2)


@given(st.integers(0, GRID**2 - 1), st.integers(0, GRID**2 - 1))
def test_patches_that_touch_are_near_enough_and_others_are_not(one: int, other: int) -> None:
    (near,) = dense._beside(np.array([one]), np.array([other]), GRID)

    down, across = one // GRID - other // GRID, one % GRID - other % GRID
    assert near == (max(abs(down), abs(across)) <= 1)


def test_a_trunk_whose_tokens_know_of_another_patch_fails() -> None:
    assert measured(2).passed is False


def test_who_knows_nothing_of_the_picture_says_the_commonest_place() -> None:
    blind = seeing(0)
    blind.embed_images = lambda frames, _: np.zeros((len(frames), GRID**2, 1), np.float32)

    (found,) = measure_dense_features(
        context(scene(24, 0), scene(6, 1), predictor=blind, twin=blind)
    )

    assert found.value == found.controls["its commonest place"] == found.controls["random init"]
    assert found.passed is False


def test_of_many_patches_a_probe_is_fitted_on_some_the_hands_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tectum_train.evaluation.trunk.dense._PATCHES", 5)

    assert measured(0).value == 1.0


def test_a_large_trunk_is_asked_about_fewer_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tectum_train.evaluation.trunk.dense._FLOATS", 40 * GRID**2 * WIDTH)

    assert measured(0).on == "40 frames of 6 episodes"


def test_frames_without_the_hand_do_not_count() -> None:
    train, test = scene(24, 0), scene(6, 1)
    test.column("state")[: 3 * LENGTH, 0] = 100.0

    (found,) = measure_dense_features(context(train, test, predictor=seeing(0), twin=seeing(3)))

    assert found.on == "48 frames of 3 episodes"


@pytest.mark.parametrize("away", [-1.0, 1e-9])
def test_where_no_frame_shows_the_hand_there_is_nothing_to_measure(away: float) -> None:
    with pytest.raises(NothingToMeasure, match="no frame shows the hand"):
        measured(0, away=away)


@pytest.mark.parametrize(
    ("column", "words"),
    [("state", "state has 2 numbers"), ("camera.extrinsics", "camera.extrinsics 2")],
)
def test_a_hand_or_a_camera_of_other_numbers_is_told(column: str, words: str) -> None:
    train, test = scene(2, 0), scene(2, 1)
    for samples in (train, test):
        assert samples.has(column)
        samples._columns[column] = samples.column(column)[:, :2]

    with pytest.raises(NothingToMeasure, match=words):
        measure_dense_features(context(train, test, predictor=seeing(0), twin=seeing(3)))


def test_it_reads_the_columns_that_it_is_told() -> None:
    renamed = Columns("pose", "action", intrinsics="lens", extrinsics="mount")
    train, test = scene(24, 0), scene(6, 1)
    for samples in (train, test):
        assert samples.has("state")
        for name, old in (
            ("pose", "state"), ("lens", "camera.intrinsics"), ("mount", "camera.extrinsics"),
        ):  # fmt: skip
            samples._columns[name] = samples._columns.pop(old)

    (found,) = measure_dense_features(
        context(train, test, predictor=seeing(0), twin=seeing(3), columns=renamed)
    )

    assert found.value == 1.0


# ---------------------------------------------------------------- pixels about a patch


def test_surroundings_are_the_patch_and_its_eight_neighbours_with_edges_repeated() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)

    found = patch_surroundings(frames, GRID).reshape(2, GRID, GRID, 3, 3 * SIZE, 3 * SIZE)

    around = np.pad(frames, ((0, 0), (SIZE, SIZE), (SIZE, SIZE), (0, 0)), mode="edge") / 255
    for row, column in ((0, 0), (2, 3), (GRID - 1, 1)):
        top, left = row * SIZE, column * SIZE
        wanted = around[:, top : top + 3 * SIZE, left : left + 3 * SIZE]
        assert np.allclose(found[:, row, column], np.moveaxis(wanted, -1, 1))


def test_large_patches_are_averaged_down_to_eight_pixels() -> None:
    grey = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2), 32, 0), 32, 1)
    frames = np.repeat(grey[None, :, :, None], 3, axis=3)

    found = patch_surroundings(frames, 2)

    assert found.shape == (1, 4, 3 * 24 * 24)
    middle = found.reshape(4, 3, 24, 24)[:, :, 8:16, 8:16]
    assert np.allclose(middle, np.arange(4)[:, None, None, None] / 255)
