"""What a model reads as its state: the robot's numbers, then the camera's, moved with pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.tiny import CAMERA, job

from tectum_core.preprocess import ImagePreprocessing
from tectum_train.augment import Placement
from tectum_train.data import DataError
from tectum_train.data.samples import Samples
from tectum_train.engine.building import open_samples
from tectum_train.engine.following import Following
from tectum_train.engine.states import CAMERA_NAMES, StateFeatures
from tectum_train.recipe import expanded

ROBOT, LENS = "observation.state", "camera.intrinsics"
AT = np.array([0, 17, 200])
OWN = ("hand_x", "hand_y", "hand_z", "gripper_opening")


@pytest.fixture(scope="module")
def samples(tiny_data: Path) -> Samples:
    return open_samples(job(tiny_data, tiny_data), "train", lambda *_: None)


# ---------------------------------------------------------------- which features


@pytest.mark.parametrize(
    ("names", "features"),
    [
        ((*OWN, *CAMERA_NAMES), (ROBOT, LENS)),
        (CAMERA_NAMES, (LENS,)),
        (OWN, (ROBOT,)),
        ((*CAMERA_NAMES, *OWN), (ROBOT,)),
        (("0",), (ROBOT,)),
        ((), ()),
    ],
)
def test_a_bundles_names_tell_what_its_state_is_made_of(
    names: tuple[str, ...], features: tuple[str, ...]
) -> None:
    assert StateFeatures.of_bundle(names, ROBOT, LENS).features == features


def test_the_widths_of_features_are_those_of_the_state() -> None:
    assert StateFeatures(ROBOT).widths(4) == {ROBOT: 4}
    assert StateFeatures(ROBOT, LENS).widths(8) == {ROBOT: 4, LENS: 4}
    assert StateFeatures(None, LENS).widths(4) == {LENS: 4}
    assert StateFeatures(None).widths(0) == {}


# ---------------------------------------------------------------- reading


def test_states_are_the_robots_numbers_and_then_the_cameras(samples: Samples) -> None:
    both = StateFeatures(ROBOT, LENS).read(samples, AT)

    assert both.dtype == torch.float32
    assert torch.equal(both[:, :4], torch.from_numpy(samples.numbers(ROBOT, AT)))
    assert both[:, 4:].tolist() == [[40, 40, 16, 16]] * 3
    assert torch.equal(StateFeatures(ROBOT).read(samples, AT), both[:, :4])
    assert torch.equal(StateFeatures(None, LENS).read(samples, AT), both[:, 4:])
    assert StateFeatures(None).read(samples, AT).shape == (3, 0)


def test_pictures_of_another_size_have_a_camera_of_that_size(tiny_data: Path) -> None:
    cache = expanded(job(tiny_data, tiny_data).data.cache)
    half = Samples.open(tiny_data / "train", CAMERA, ImagePreprocessing(size=16), cache)

    camera = StateFeatures(None, LENS).read(half, AT[:, None])

    assert camera.shape == (3, 1, 4)
    assert camera[0, 0].tolist() == [20, 20, 7.75, 7.75]  # 16 is 16.5 from the picture's edge


def test_the_camera_moves_with_the_pixels_and_the_robot_with_a_mirror(samples: Samples) -> None:
    placement = Placement(
        torch.tensor([[2.0, 0.5], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64),
        torch.tensor([[1.0, 3.0], [0.0, 0.0], [31.0, 0.0]], dtype=torch.float64),
        32,
    )
    plain = StateFeatures(ROBOT, LENS).read(samples, AT)

    moved = StateFeatures(ROBOT, LENS).read(samples, AT, placement, Following(negated=(0, 2)))

    assert moved[:, 4:].tolist() == [[80, 20, 33, 11], [40, 40, 16, 16], [40, 40, 15, 16]]
    assert torch.equal(moved[:2, :4], plain[:2, :4])
    assert torch.equal(moved[2, :4], plain[2, :4] * torch.tensor([-1, 1, -1, 1]))


def test_a_clips_states_are_mirrored_in_all_of_its_frames() -> None:
    values = torch.rand(2, 3, 5, 4)
    scale = torch.tensor([[-1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)

    found = Following(negated=(3,)).moved(values, Placement(scale, torch.zeros_like(scale), 32))

    assert torch.equal(found[0, ..., 3], -values[0, ..., 3])
    assert torch.equal(found[0, ..., :3], values[0, ..., :3])
    assert torch.equal(found[1], values[1])


def test_a_camera_that_is_not_recorded_is_named(samples: Samples) -> None:
    with pytest.raises(DataError, match=r"no feature 'camera\.matrix'"):
        StateFeatures(ROBOT, "camera.matrix").read(samples, AT)
