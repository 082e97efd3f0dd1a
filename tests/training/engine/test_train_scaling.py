"""Scales of actions and states: of what training shows, augmentation and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.tiny import job, parts

from tectum_core.architecture import ActionBinsConfig
from tectum_core.model.action_bins import ActionBins
from tectum_core.preprocess import ActionScaling
from tectum_train.augment import AugmentationConfig, Draws, Frames
from tectum_train.data import DataError
from tectum_train.data.samples import Samples
from tectum_train.engine.batches import BatchMaker
from tectum_train.engine.building import open_samples
from tectum_train.engine.scaling import _names, scaling_of, shown_actions
from tectum_train.engine.states import CAMERA_NAMES
from tectum_train.objectives import Batch
from tectum_train.recipe import Recipe, RecipeError

MANY, SIDE = 20_000, 32
MIRROR = {"actions": [0], "states": [0], "words": {"left": "right"}}


def seeing(data: Path, **changes: Any) -> Recipe:
    """A recipe that reads its camera's intrinsics."""
    actions = {"dimensions": 4, "state_dimensions": 8, "max_steps": 8}
    return job(
        data, data, model=parts(actions=actions), data__intrinsics="camera.intrinsics", **changes
    )


@pytest.fixture(scope="module")
def samples(tiny_data: Path) -> Samples:
    return open_samples(job(tiny_data, tiny_data), "train", lambda *_: None)


def shown(recipe: Recipe, samples: Samples, scaling: ActionScaling | None) -> Batch:
    """Many samples' numbers, as batches have them; their pictures keep their colours."""
    plain = {"colour": 0.0, "hue": 0.0, "grey": 0.0, "blur": 0.0}
    large = recipe.model_copy(
        update={
            "schedule": recipe.schedule.model_copy(update={"batch_size": 2400}),
            "augmentation": recipe.augmentation.model_copy(update=plain),
        }
    )
    return BatchMaker(large, samples, None, scaling, torch.device("cpu")).make(0)


# ---------------------------------------------------------------- what augmentation does


@given(
    st.floats(0, 0.5), st.integers(0, 6), st.sampled_from([0.0, 0.3, 1.0]), st.floats(5, 60),
    st.floats(0, 31), st.floats(0, 8), st.none() | st.floats(0.1, 1.0),
)  # fmt: skip
def test_moments_of_a_moved_camera_are_those_of_many_draws(
    zoom: float, shift: int, share: float, focal: float, centre: float, spread: float,
    least: float | None,
) -> None:  # fmt: skip
    flip = {"share": share, "words": {}} if share else None
    crop = None if least is None else {"area": [least, 1.0]}
    config = AugmentationConfig.model_validate(
        {"zoom": zoom, "shift": shift, "flip": flip, "crop": crop}
    )
    frames, index = Frames(SIDE, config), np.arange(MANY)
    camera = np.array([focal, 1.1 * focal, centre, 31 - centre])
    before = camera + spread * np.random.default_rng(0).uniform(-1, 1, (MANY, 4))

    placement = frames.placement(Draws(1, np.zeros_like(index), index))
    after = placement.intrinsics(torch.from_numpy(before)).numpy()
    mean, variance = frames.camera_moments(before.mean(axis=0), before.var(axis=0))

    error = 6 * np.sqrt(variance / MANY) + 1e-9
    assert (np.abs(after.mean(axis=0) - mean) < error).all()
    assert (np.abs(after.std(axis=0) - np.sqrt(variance)) < error + 0.02).all()


def test_a_still_camera_that_zooms_and_mirrors_is_one_deviation_wide(
    tiny_data: Path, samples: Samples
) -> None:
    mirror, crop = MIRROR | {"share": 0.4}, {"area": [0.5, 1.0]}
    recipe = seeing(tiny_data, augmentation={"shift": 3, "zoom": 0.4, "crop": crop, "flip": mirror})

    scaling = scaling_of(recipe, samples)
    state = shown(recipe, samples, scaling).state

    assert scaling.state_names[-4:] == CAMERA_NAMES
    assert state[:, 4:].mean(dim=0).abs().max() < 0.1
    assert state[:, 4:].std(dim=0).numpy() == pytest.approx(1, abs=0.05)
    assert state[:, 4:].abs().max() < 5


def test_a_camera_that_never_moves_is_one_pixel_wide(tiny_data: Path, samples: Samples) -> None:
    recipe = seeing(tiny_data, augmentation={"shift": 0})

    scaling = scaling_of(recipe, samples)

    assert scaling.state_mean[-4:] == (40, 40, 16, 16)
    assert scaling.state_standard_deviation[-4:] == (1, 1, 1, 1)


@pytest.mark.parametrize("exchanged", [{}, {1: 2}])
def test_mirrored_numbers_have_the_mean_and_spread_of_both_sides(
    exchanged: dict[int, int], tiny_data: Path, samples: Samples
) -> None:
    pairs = {"exchanged_actions": exchanged, "exchanged_states": exchanged}
    recipe = job(tiny_data, tiny_data, augmentation={"flip": {**MIRROR, **pairs, "share": 0.3}})

    scaling = scaling_of(recipe, samples)
    raw = shown(recipe, samples, None)

    for values, mean, deviation in (
        (raw.state, scaling.state_mean, scaling.state_standard_deviation),
        (raw.actions[:, 0], scaling.mean, scaling.standard_deviation),
    ):
        assert values.mean(dim=0).numpy() == pytest.approx(mean, abs=0.02)
        assert values.std(dim=0).numpy() == pytest.approx(deviation, abs=0.02)


def test_without_a_mirror_scales_are_those_of_the_data(tiny_data: Path, samples: Samples) -> None:
    scaling = scaling_of(job(tiny_data, tiny_data, augmentation={"zoom": 0.3}), samples)

    for name, mean, deviation in (
        ("action", scaling.mean, scaling.standard_deviation),
        ("observation.state", scaling.state_mean, scaling.state_standard_deviation),
    ):
        values = samples.column(name).astype(np.float64)
        assert mean == tuple(values.mean(axis=0).tolist())
        assert deviation == tuple(values.std(axis=0).tolist())


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_bins_hold_as_many_mirrored_actions_as_training_shows(
    tiny_data: Path, samples: Samples, share: float
) -> None:
    recipe = job(tiny_data, tiny_data, augmentation={"flip": MIRROR | {"share": share}})
    numbers = samples.numbers("action", np.arange(len(samples)))
    one_sided = mock.patch.object(Samples, "numbers", return_value=np.abs(numbers))
    scaling = scaling_of(recipe, samples)
    bins = ActionBins(ActionBinsConfig(count=10, spacing="quantiles"), 4)

    with one_sided:
        shown = shown_actions(recipe, samples, scaling)
    bins.fit(shown)

    raw = shown.double() * torch.tensor(scaling.standard_deviation) + torch.tensor(scaling.mean)
    assert float((raw[:, 0] < 0).double().mean()) == pytest.approx(share, abs=0.01)
    assert bool((raw[:, 1:] >= -1e-6).all())
    held = bins.places(shown)[:, 0].bincount(minlength=10)
    assert held.tolist() == pytest.approx([len(shown) / 10] * 10, rel=0.05)


def test_bins_hold_both_of_what_a_mirror_exchanges(tiny_data: Path, samples: Samples) -> None:
    flip = {**MIRROR, "actions": [], "exchanged_actions": {0: 3}, "share": 0.5}
    recipe = job(tiny_data, tiny_data, augmentation={"flip": flip})
    scaling = scaling_of(recipe, samples)

    shown = shown_actions(recipe, samples, scaling)

    taken = torch.from_numpy(samples.numbers("action", np.arange(len(samples))))
    both = torch.cat([taken, taken[:, [3, 1, 2, 0]]])
    assert torch.equal(shown, scaling.standardise(both))


def test_without_a_mirror_bins_are_those_of_the_data(tiny_data: Path, samples: Samples) -> None:
    recipe = job(tiny_data, tiny_data, augmentation={"flip": MIRROR | {"actions": []}})
    scaling = scaling_of(recipe, samples)

    shown = shown_actions(recipe, samples, scaling)

    taken = torch.from_numpy(samples.numbers("action", np.arange(len(samples))))
    assert torch.equal(shown, scaling.standardise(taken))


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (["x", "y"], ("x", "y")),
        ({"motors": ["x", "y"]}, ("x", "y")),
        (None, ("0", "1")),
        (["x"], ("0", "1")),
        ({"motors": ["x", "y"], "more": ["z"]}, ("0", "1")),
    ],
)
def test_names_are_the_data_sets_own_in_any_of_its_forms(
    found: object, names: tuple[str, ...]
) -> None:
    assert _names(found, 2) == names


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"actions": [0, 4]}, "actions: found 4; allowed: 0 to 3, the numbers of action"),
        ({"states": [9]}, "states: found 9; allowed: 0 to 3, the numbers of observation.state"),
        (
            {"exchanged_actions": {1: 4}},
            "exchanged_actions: found 4; allowed: 0 to 3, the numbers of action",
        ),
        (
            {"exchanged_states": {9: 1}},
            "exchanged_states: found 9; allowed: 0 to 3, the numbers of observation.state",
        ),
        ({"labels": {"side": {0: 1}}}, "labels: found 'side', which no objective reads as labels"),
    ],
)
def test_places_that_the_data_have_not_are_refused_as_they_are_opened(
    change: dict[str, Any], told: str, tiny_data: Path
) -> None:
    labelled = {"kind": "supervised", "classes": {"task_family": 4}}
    recipe = job(
        tiny_data, tiny_data, objectives=[{"kind": "action_prediction"}, labelled],
        augmentation={"flip": {**MIRROR, "labels": {}, **change}},
    )  # fmt: skip

    with pytest.raises(RecipeError) as error:
        open_samples(recipe, "train", lambda *_: None)

    assert str(error.value) == f"augmentation.flip.{told}"


def test_intrinsics_of_other_numbers_are_refused_by_name(tiny_data: Path, samples: Samples) -> None:
    recipe = seeing(tiny_data)
    odd = recipe.data.model_copy(update={"intrinsics": "camera.extrinsics"})

    with pytest.raises(DataError, match=r"camera\.extrinsics has 16 numbers; wanted are the cam"):
        scaling_of(recipe.model_copy(update={"data": odd}), samples)
