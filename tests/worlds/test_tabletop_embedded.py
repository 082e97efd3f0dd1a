"""The committed data set is what its own record promises."""

from pathlib import Path

import numpy as np
import pytest

from tabletop.camera import project
from tabletop.dataset import Dataset
from tabletop.families import FAMILIES
from tabletop.instructions import sentences
from tabletop.layouts import cells

ROOT = Path(__file__).parents[2] / "worlds" / "embedded"
MOST_BYTES = 5_500_000


@pytest.fixture(scope="module", params=["train", "test"])
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return Dataset(ROOT / request.param)


def test_it_is_small_enough_to_be_committed() -> None:
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) <= MOST_BYTES


def test_it_has_episodes_of_every_family(dataset: Dataset) -> None:
    assert {extent.family for extent in dataset.extents()} == set(range(len(FAMILIES)))


def test_its_layouts_and_sentences_are_its_own_splits(dataset: Dataset) -> None:
    split = dataset.world["split"]

    for extent in dataset.extents():
        assert extent.layout in cells(split)
        assert extent.instruction in sentences(extent.family, split)


def test_it_has_a_picture_for_every_row(dataset: Dataset) -> None:
    lengths = [len(film) for film in dataset.films()]

    assert lengths == [extent.end - extent.begin for extent in dataset.extents()]


def test_every_episode_ends_soon_after_its_first_success(dataset: Dataset) -> None:
    successes = dataset.column("next.success")

    for extent in dataset.extents():
        first = int(np.argmax(successes[extent.begin : extent.end]))
        assert successes[extent.begin + first]
        assert extent.end - extent.begin - first == 6


def test_actions_and_hands_stay_within_their_ranges(dataset: Dataset) -> None:
    actions, hands = dataset.column("action"), dataset.column("observation.state")[:, :3]

    assert np.abs(actions).max() <= 1
    assert np.abs(hands[:, 0]).max() <= 0.525
    assert (hands[:, 2] > 0).all()


def test_the_recorded_camera_has_the_hand_in_the_picture(dataset: Dataset) -> None:
    for extent in dataset.extents():
        pixels, depth = project(
            dataset.column("observation.state")[extent.begin : extent.end, :3],
            dataset.column("camera.intrinsics")[extent.begin],
            dataset.column("camera.extrinsics")[extent.begin].reshape(4, 4),
        )
        assert (depth > 0).all()
        assert np.mean((pixels > -0.5) & (pixels < 95.5)) > 0.99
