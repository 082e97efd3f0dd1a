"""Numbers that follow the picture: a place is where its dot is, and a mirror is its own inverse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training import tiny
from tests.training.engine.runs import checkpoint, metrics, same, trained
from tests.training.tiny import job, parts, write_data
from torch import Tensor

from tectum_core.preprocess import ImagePreprocessing, resize
from tectum_train.augment import AugmentationConfig, Draws, Frames, Placement
from tectum_train.data import LeRobotDataset
from tectum_train.data.samples import Order, Samples
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import open_samples
from tectum_train.engine.following import Following
from tectum_train.engine.scaling import scaling_of, shown_actions
from tectum_train.objectives.batch import given as read
from tectum_train.recipe import Recipe, RecipeError

SIDE, DOTS, MANY = 32, 12, 20_000
NOTHING = {"shift": 0, "colour": 0.0, "hue": 0.0}
PLACES = {"width": 32, "height": 32, "actions": [[0, 1]], "states": [[0, 1]]}
ARMS = Following(
    negated=(4, 5, 8), exchanged={0: 2, 1: 3, 4: 5, 6: 7}, places=((0, 1), (2, 3)),
    middle=np.array([256.0, 100.0]), pixel=np.array([16.0, 7.0]),
)  # fmt: skip
"""Two hands in the picture, numbers of both arms with and without a sign, and two of neither."""
NUMBERS = 10
MIRROR = {"actions": [2], "states": [], "words": {"left": "right"}}


def draws(seed: int, samples: int) -> Draws:
    index = np.arange(samples)
    return Draws(seed, np.zeros_like(index), index)


def augmented(**strengths: Any) -> Frames:
    return Frames(SIDE, AugmentationConfig.model_validate({"shift": 0, **strengths}))


MOVING = st.fixed_dictionaries(
    {"shift": st.integers(0, 4), "zoom": st.floats(0, 0.3)},
    optional={
        "crop": st.just({"area": [0.5, 1.0], "aspect": 1.2}),
        "flip": st.just({"share": 0.5}),
    },
)


# ---------------------------------------------------------------- dots


class Table:
    """Pictures of height × width with a dot each, and what a model sees of them.

    Args:
        shape: height and width of the recorded pictures.
        plane: width and height that places are counted in.
        images: how pictures become the model's.
        where: float64[B, 2], of the dots: shares of what the model sees.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        plane: tuple[float, float],
        images: ImagePreprocessing,
        where: Tensor,
    ) -> None:
        height, width = shape
        features = {tiny.CAMERA: SimpleNamespace(picture_size=shape)}
        dataset = SimpleNamespace(
            tasks=(),
            episodes=[SimpleNamespace(length=1, dataset_to_index=1)],
            info=SimpleNamespace(features=features),
        )
        blank = np.zeros((1, SIDE, SIDE, 3), np.uint8)
        samples = Samples(cast("LeRobotDataset", dataset), blank, tiny.CAMERA, images)
        self.middle, self.pixel = map(torch.from_numpy, samples.plane(*plane))
        self.following = Following(
            places=((0, 1),), middle=self.middle.numpy(), pixel=self.pixel.numpy()
        )
        self.places = self.middle + (where - 0.5) * SIDE * self.pixel
        # In pixels of the recorded picture, from its edge: nothing is asked of what is tested.
        at = self.places / torch.tensor(plane) * torch.tensor([width, height])
        wide = min(shape) / SIDE
        across, down = (
            torch.exp(-(((torch.arange(count) + 0.5 - at[:, axis, None]) / wide) ** 2) / 2)
            for axis, count in enumerate((width, height))
        )
        dots = (255 * down[:, :, None] * across[:, None]).round().to(torch.uint8)
        self.frames = resize(dots[..., None].expand(-1, -1, -1, 3), images)

    def found(self, placement: Placement) -> Tensor:
        """float64[B, 2], where the dots are in the view, in the unit of places."""
        view = placement.applied(self.frames[:, None].float())[:, 0, 0].double()
        grid = torch.arange(SIDE, dtype=torch.float64)
        heavy = view.sum(dim=(1, 2))
        across, down = ((view.sum(dim=axis) * grid).sum(dim=1) / heavy for axis in (1, 2))
        return self.middle + (torch.stack([across, down], 1) - (SIDE - 1) / 2) * self.pixel


@given(
    MOVING, st.integers(0, 2**32), st.sampled_from([(32, 32), (64, 64), (48, 64), (81, 60)]),
    st.sampled_from([(512.0, 512.0), (64.0, 48.0), (1.0, 1.0)]), st.sampled_from([None, 32, 37]),
)  # fmt: skip
def test_a_dot_is_found_at_its_moved_place(
    strengths: dict[str, Any], seed: int, shape: tuple[int, int], plane: tuple[float, float],
    resize_to: int | None,
) -> None:  # fmt: skip
    mode = {} if resize_to is None else {"resize_mode": "center_crop", "resize_to": resize_to}
    where = 0.35 + 0.3 * torch.rand(
        DOTS, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    table = Table(shape, plane, ImagePreprocessing.model_validate({"size": SIDE, **mode}), where)
    placement = augmented(**strengths).placement(draws(seed, DOTS))

    moved = table.following.moved(table.places, placement)

    seen = (moved - table.middle) / table.pixel  # from the view's middle, in pixels
    whole = seen.abs().amax(1) < SIDE / 2 - 4 * placement.scale.abs().amax(1)
    assert whole.any()
    wrong = (table.found(placement) - moved).abs() / table.pixel
    assert wrong[whole].max() < 0.2


def test_the_mirrored_place_of_a_whole_picture_is_as_far_from_its_other_edge() -> None:
    images = ImagePreprocessing(size=SIDE)
    table = Table((48, 64), (512, 384), images, torch.rand(5, 2, dtype=torch.float64))

    turned = table.following.moved(table.places, augmented().mirror)

    assert torch.allclose(turned[:, 0], 512 - table.places[:, 0])
    assert torch.equal(turned[:, 1], table.places[:, 1])


# ---------------------------------------------------------------- laws


@given(st.integers(0, 2**32))
def test_what_is_mirrored_twice_is_as_it_was(seed: int) -> None:
    values = 500 * torch.rand(3, 4, NUMBERS, generator=torch.Generator().manual_seed(seed))
    mirror = augmented().mirror

    once = ARMS.moved(values, mirror)

    assert torch.allclose(ARMS.moved(once, mirror), values, atol=1e-3)
    assert torch.equal(once[..., 4], -values[..., 5])
    assert torch.equal(once[..., 6], values[..., 7])
    assert torch.equal(once[..., 8], -values[..., 8])
    assert torch.equal(once[..., 9], values[..., 9])
    assert torch.allclose(once[..., 0], 512 - values[..., 2])
    assert torch.equal(once[..., 1], values[..., 3])


def test_samples_that_stay_keep_their_numbers_to_the_bit() -> None:
    values = 500 * torch.rand(4, 3, NUMBERS)
    still = augmented().placement(draws(0, 4))
    half = still.mirrored(torch.tensor([True, False, True, False]))

    moved = ARMS.moved(values, half)

    assert torch.equal(ARMS.moved(values, still), values)
    assert torch.equal(moved[1::2], values[1::2])
    assert not torch.equal(moved[::2], values[::2])
    assert Following().moved(values, half) is values


@given(MOVING, st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**32))
def test_moments_are_those_of_many_draws(
    strengths: dict[str, Any], share: float, seed: int
) -> None:
    frames = augmented(**{**strengths, "flip": {"share": share} if share else None})
    around = np.random.default_rng(seed).uniform(-200, 500, NUMBERS)
    values = around + np.random.default_rng(seed + 1).normal(scale=20, size=(MANY, NUMBERS))

    mean, variance = ARMS.moments(frames, values.mean(axis=0), values.var(axis=0))
    after = ARMS.moved(torch.from_numpy(values), frames.placement(draws(seed, MANY))).numpy()

    deviation = np.sqrt(variance)
    assert (np.abs(after.mean(axis=0) - mean) < 6 * deviation / MANY**0.5).all()
    assert after.std(axis=0) == pytest.approx(deviation, rel=0.04)


def test_moments_of_what_does_not_move_are_the_datas_to_the_bit() -> None:
    mean, variance = np.random.default_rng(0).uniform(1, 500, (2, NUMBERS))

    found = ARMS.moments(augmented(), mean, variance)

    assert np.array_equal(found, (mean, variance))


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data, whose hand is where it is in the picture and is told where to go there."""
    plain = tiny._episode

    def in_pixels(family: int, seed: int) -> dict[str, Any]:
        columns = plain(family, seed)
        state = 16 + 20 * columns["observation.state"]
        return {
            **columns,
            "observation.state": state,
            "action": state + 20 * columns["action"],
        }

    with mock.patch.object(tiny, "_episode", in_pixels):
        return write_data(tmp_path_factory.mktemp("places"))


def seeing(data: Path, folder: Path, augmentation: dict[str, Any], **changes: Any) -> Recipe:
    objectives = [{"kind": "action_prediction"}, {"kind": "world_model"}]
    return job(
        data, folder, objectives=objectives, augmentation={**NOTHING, **augmentation},
        schedule={"steps": 2, "batch_size": 8, "warmup_steps": 1}, **changes,
    )  # fmt: skip


def opened(recipe: Recipe) -> Samples:
    return open_samples(recipe, "train", lambda *_: None)


def test_actions_states_and_clips_of_a_batch_are_where_its_pictures_went(
    data: Path, tmp_path: Path
) -> None:
    told = seeing(data, tmp_path, {"shift": 3, "zoom": 0.2, "flip": MIRROR}, data__places=PLACES)
    plain = seeing(data, tmp_path, {})
    samples = opened(told)
    following = Following((), {}, ((0, 1),), np.full(2, 16.0))
    turning = replace(following, negated=(2,))

    before, after = (
        BatchMaker(one, samples, tiny.tokenizer(), None, torch.device("cpu")).make(0)
        for one in (plain, told)
    )

    index, epoch = Order(told.seed, told.schedule.batch_size, len(samples)).of(0)
    placement = Frames(SIDE, told.augmentation).placement(Draws(told.seed, epoch, index))
    assert placement.flipped.any()
    assert torch.equal(after.state, following.moved(before.state, placement))
    assert torch.equal(after.actions, turning.moved(before.actions, placement))
    clips = [read(one.clip, "a clip").actions for one in (before, after)]
    assert torch.equal(clips[1], turning.moved(clips[0], placement))
    assert not torch.equal(after.actions[..., :2], before.actions[..., :2])


def test_shown_places_are_one_deviation_wide(data: Path, tmp_path: Path) -> None:
    moving = {"shift": 3, "zoom": 0.3, "flip": MIRROR}
    recipe = seeing(data, tmp_path, moving, data__places=PLACES)
    samples = opened(recipe)
    scaling = scaling_of(recipe, samples)

    shown = shown_actions(recipe, samples, scaling)

    assert len(shown) == 20 * len(samples)
    assert shown.mean(dim=0).abs().max() < 0.05
    assert shown.std(dim=0).numpy() == pytest.approx(1, abs=0.05)
    assert scaling.mean[0] == pytest.approx(16, abs=0.1)  # as often mirrored as not
    plain = scaling_of(seeing(data, tmp_path, moving), samples)
    assert scaling.standard_deviation[0] > plain.standard_deviation[0]
    assert scaling.mean[2:] == plain.mean[2:]


def test_without_augmentation_places_change_nothing(data: Path, tmp_path: Path) -> None:
    actions = {"dimensions": 4, "state_dimensions": 4, "max_steps": 8}
    model = parts(actions={**actions, "bins": {"count": 4, "spacing": "quantiles"}})
    runs = [
        trained(seeing(data, tmp_path / name, {}, model=model, data__places=places))
        for name, places in (("plain", None), ("told", PLACES))
    ]

    plain, told = (run.recipe for run in runs)

    assert runs[0].config.actions == runs[1].config.actions
    assert same(checkpoint(plain), checkpoint(told))
    losses = [{k: v for k, v in one.items() if "loss" in k} for one in metrics(plain)]
    assert losses == [{k: v for k, v in one.items() if "loss" in k} for one in metrics(told)]


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"actions": [[0, 1], [2, 4]]},
            "data.places.actions: found 4; allowed: 0 to 3, the numbers of action",
        ),
        (
            {"width": 0.5},
            "data.places.actions: found [0, 1], which action has from",
        ),
        ({"states": [[0, 7]]}, "data.places.states: found 7; allowed: 0 to 3, the numbers of obs"),
    ],
)
def test_places_that_the_pictures_have_not_are_refused_as_they_are_opened(
    change: dict[str, Any], told: str, data: Path, tmp_path: Path
) -> None:
    recipe = seeing(data, tmp_path, {}, data__places=PLACES | change)

    with pytest.raises(RecipeError) as error:
        opened(recipe)

    assert str(error.value).startswith(told)


def test_places_in_other_units_are_told_with_what_was_found(data: Path, tmp_path: Path) -> None:
    recipe = seeing(data, tmp_path, {}, data__places=PLACES | {"width": 1, "height": 1})

    with pytest.raises(RecipeError, match=r"in 0% of the frames in the picture; allowed: .* \(1\)"):
        opened(recipe)
