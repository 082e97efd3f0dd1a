"""What nobody could learn is refused as the recipe is read, by the fields that say so."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.training.refused import recipe, why
from tests.training.tiny import latent_action, parts, video, vision_alone, world_model

from tectum_core.architecture import JointConfig, TransformerDynamicsConfig, VqBottleneck
from tectum_train import recipes
from tectum_train.recipe import Recipe, read_recipe

LATENTS = latent_action(target="latents", decoded_steps=0)
READING = TransformerDynamicsConfig(transformer=world_model()["transformer"], source="trunk")
FILMS = {**parts(latent_action=LATENTS), **video()}


@pytest.mark.parametrize("name", recipes.named())
def test_every_recipe_of_the_package_can_be_learnt(name: str) -> None:
    assert read_recipe(name).name == name


# ---------------------------------------------------------------- a trunk that somebody trains


DETACHED: list[Any] = [
    pytest.param({"kind": "world_model"}, id="world_model"),
    pytest.param({"kind": "latent_action"}, id="latent_action"),
]


@pytest.mark.parametrize("one", DETACHED)
@pytest.mark.parametrize(
    "beside",
    [
        [],
        [{"kind": "video_mae"}],
        [{"kind": "masked_language", "image_share": 0}],
        [{"kind": "masked_action", "image_share": 0}],
    ],
    ids=["alone", "films", "words", "actions"],
)
def test_latents_of_a_trunk_that_nobody_trains_are_refused(
    one: dict[str, Any], beside: list[dict[str, Any]]
) -> None:
    words = rf"objectives\.{one['kind']}\.encoder: found 'detached'; allowed: 'trained', .* `trunk`"

    assert re.search(words, why(one, *beside, model=FILMS))


@pytest.mark.parametrize("one", DETACHED)
def test_a_bundles_trunk_or_another_objectives_may_stay_as_it_is(one: dict[str, Any]) -> None:
    masked = {"kind": "masked_image"}

    assert recipe(one, model=FILMS, trunk="embedded").trunk == "embedded"
    assert len(recipe(one, masked, model=FILMS).objectives) == 2
    reading = parts(latent_action=latent_action(dynamics=READING, image_size=16))
    assert recipe({"kind": "world_model"}, {"kind": "latent_action"}, model=reading)


@pytest.mark.parametrize("one", DETACHED)
def test_what_trains_no_trunk_reads_the_one_that_is_served_and_is_not(one: dict[str, Any]) -> None:
    both = {"kind": "masked_image"}, {"kind": "action_prediction"}

    assert recipe(one, *both, model=FILMS, tasks=drawn("masked_image"))
    for changes in ({}, {"trunk": "embedded"}):
        told = why(one, *both, model=FILMS, tasks=drawn(one["kind"]), **changes)
        assert (
            f"tasks.sharing.served: found {one['kind']}, which trains no trunk; allowed: " in told
        )
        assert "allowed: masked_image or action_prediction" in told


@pytest.mark.parametrize("one", DETACHED)
def test_one_trunk_alone_has_none_to_be_drawn_to(one: dict[str, Any]) -> None:
    told = why(one, {"kind": "masked_image"}, model=FILMS, tasks=drawn("masked_image"))

    assert "tasks.sharing: found distance; allowed: where two objectives or more train" in told
    assert "(here: masked_image)" in told


def drawn(served: str) -> dict[str, Any]:
    return {"sharing": {"kind": "distance", "served": served}}


def test_a_trunk_that_learns_from_what_it_predicts_needs_no_other() -> None:
    assert recipe({"kind": "world_model", "encoder": "trained"}).trunk is None
    assert recipe({"kind": "latent_action"}).trunk is None  # of pixels, which it does not read


def test_how_much_of_a_few_episodes_is_taken_is_refused_without_how_many_these_are() -> None:
    told = why({"kind": "sim_clr"}, data__frames_at_once=8)

    assert "frames_at_once: found 8 without episodes_at_once" in told
    assert recipe({"kind": "sim_clr"}, data__frames_at_once=8, data__episodes_at_once=2)


# ---------------------------------------------------------------- actions


def test_a_world_model_of_latent_actions_that_nobody_teaches_is_refused() -> None:
    world = world_model(actions="latent", action_steps=None)
    taught, read = {"kind": "latent_action"}, {"kind": "world_model", "encoder": "trained"}
    words = r"model\.world_model\.actions: found 'latent'; allowed: beside an objective latent_act"

    assert re.search(words, why(read, model=parts(world_model=world)))
    assert recipe(read, taught, model=parts(world_model=world))


def test_latent_actions_are_not_read_by_another_trunk_than_they_are_taught_on() -> None:
    world = world_model(actions="latent", action_steps=None)
    reading = parts(latent_action=latent_action(dynamics=READING, image_size=16), world_model=world)
    both = {"kind": "latent_action"}, {"kind": "world_model", "encoder": "trained"}
    masked, tasks = {"kind": "masked_image"}, drawn("world_model")

    told = why(*both, model=reading, tasks=tasks)

    assert "model.world_model.actions: found 'latent'; allowed: with tasks.sharing null" in told
    assert recipe(*both, model=reading)
    assert recipe(*both, masked, model=parts(world_model=world), tasks=tasks)  # of pixels


def test_one_action_has_no_run_to_hide() -> None:
    actions = {"dimensions": 4, "state_dimensions": 4, "max_steps": 1}
    changes = {"model": parts(actions=actions, latent_action=None), "data__action_steps": 1}

    told = why({"kind": "masked_action"}, **changes)

    assert "model.actions.max_steps: found 1; allowed: at least 2" in told
    assert recipe({"kind": "action_prediction"}, **changes)


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("one", "size"),
    [
        ({"kind": "image_text"}, 1),
        ({"kind": "image_text", "loss": "sigmoid"}, 1),
        ({"kind": "sim_clr"}, 1),
        ({"kind": "sim_clr", "fraction": 0.25}, 4),
        ({"kind": "mo_co"}, 1),
        ({"kind": "mo_co", "queue": 0, "batch_norm": False}, 1),
        ({"kind": "mo_co", "batch_norm": False, "koleo_weight": 0.1}, 1),
        ({"kind": "cpc", "negatives": "in_batch"}, 1),
        ({"kind": "dino"}, 1),
        ({"kind": "dino", "koleo_weight": 0, "batch_norm": True}, 1),
    ],
    ids=str,
)
def test_a_step_of_one_sample_is_refused_where_samples_are_told_apart(
    one: dict[str, Any], size: int
) -> None:
    words = rf"schedule\.batch_size: found {size}, of which {one['kind']} uses 1; .* 2 or more"

    assert re.search(words, why(one, schedule__batch_size=size))
    assert recipe(one, schedule__batch_size=2 * size)


@pytest.mark.parametrize(
    "one",
    [
        {"kind": "image_text", "negatives": {"queue": 4}},
        {"kind": "mo_co", "batch_norm": False},
        {"kind": "cpc", "negatives": "same_episode"},
        {"kind": "cpc", "negatives": "both"},
        {"kind": "masked_image"},
        {"kind": "dino", "koleo_weight": 0},
    ],
    ids=str,
)
def test_one_sample_is_enough_where_something_else_is_told_from_it(one: dict[str, Any]) -> None:
    assert recipe(one, schedule__batch_size=1).schedule.batch_size == 1


@pytest.mark.parametrize(("size", "most"), [(8, 2), (6, 1.5)])
def test_codes_that_would_be_drawn_anew_in_every_step_are_refused(size: int, most: float) -> None:
    def made(restart_below: float) -> Recipe:
        shape = VqBottleneck(codes=4, codebook_size=8, restart_below=restart_below)
        return recipe(
            {"kind": "latent_action"}, schedule__batch_size=size,
            model=parts(latent_action=latent_action(bottleneck=shape)),
        )  # fmt: skip

    assert made(most)
    with pytest.raises(ValueError, match=rf"restart_below: found .*; allowed: at most {most:g}, "):
        made(most * 1.01)


# ---------------------------------------------------------------- names, scales, settings


def test_two_objectives_of_one_kind_are_refused_without_tasks_too() -> None:
    one, other = {"kind": "masked_image"}, {"kind": "image_text"}

    told = why(one, other, {**one, "weight": 2})

    assert "objectives: found masked_image 2 times; allowed: once each" in told


def test_a_scale_that_its_loss_would_never_have_is_refused() -> None:
    def made(loss: str, scale: float) -> Recipe:
        joint = JointConfig(width=16, initial_scale=scale, bias=-10)
        return recipe({"kind": "image_text", "loss": loss}, model=parts(joint=joint))

    assert made("info_nce", 100)
    assert made("sigmoid", 1e6)
    with pytest.raises(ValueError, match=r"joint\.initial_scale: found 1e\+06; allowed: at most"):
        made("info_nce", 1e6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_ratio": [0.5, 0.1]}, r"dino\.mask_ratio: found 0\.5 to 0\.1; allowed: from least"),
        ({"teacher_temperature": [0.04, 0.1], "teacher_steps": 5}, "both below student_temperatur"),
        ({"teacher_temperature": [0.07, 0.04], "teacher_steps": 5}, "the first at most the last"),
        ({"student_temperature": 0.05}, r"found 0\.07 to 0\.07; .* below student_temperature"),
        ({"teacher_temperature": [0.04, 0.07]}, r"dino\.teacher_steps: found 0; allowed: above 0"),
    ],
)
def test_ranges_of_dino_that_are_none_are_refused(changes: dict[str, Any], words: str) -> None:
    assert re.search(words, why({"kind": "dino", **changes}))


@pytest.mark.parametrize("beside", ["masked_image", "sim_clr"])
def test_patches_that_stay_random_are_nobody_elses(beside: str) -> None:
    frozen = {"kind": "mo_co", "frozen_patches": True}

    told = why(frozen, {"kind": beside})

    assert f"mo_co.frozen_patches: found true beside {beside}; allowed: alone" in told
    assert recipe(frozen)


# ---------------------------------------------------------------- descent


@pytest.mark.parametrize("betas", [[1, 0.9], [0.9, 1]])
def test_averages_that_never_move_are_refused(betas: list[float]) -> None:
    assert "less than 1" in why({"kind": "masked_image"}, optimiser={"betas": betas})


@pytest.mark.parametrize("warmup", [6, 7])
def test_a_warm_up_that_outlasts_the_run_is_refused(warmup: int) -> None:
    told = why({"kind": "masked_image"}, schedule__warmup_steps=warmup)

    assert f"warmup_steps: found {warmup}; allowed: fewer than steps (6)" in told


@pytest.mark.parametrize(
    ("one", "part", "allowed"),
    [
        ({"kind": "masked_image", "mask": {"kind": "random", "ratios": [0.5]}}, "pixel_decoder",
         "found 0.75; allowed: 0.5 to 0.5"),
        ({"kind": "video_mae", "mask": {"kind": "tube", "ratios": [0.8, 0.9]}}, "video_decoder",
         "found 0.75; allowed: 0.8 to 0.9"),
        ({"kind": "masked_action", "ratios": [0.6, 0.9]}, "actions",
         "found 0.5; allowed: 0.6 to 0.9"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_hidden_by_default_is_what_training_hides(
    one: dict[str, Any], part: str, allowed: str
) -> None:
    films = {**parts(), **video()}
    between = {**films, part: {**films[part], "mask_ratio": 0.5 if "0.5" in allowed[20:] else 0.85}}

    assert f"model.{part}.mask_ratio: {allowed}, as {one['kind']} hides" in why(one, model=films)
    assert recipe(one, model=between)


# ---------------------------------------------------------------- left and right


@pytest.mark.parametrize(
    ("beside", "what"),
    [
        ({"kind": "image_text"}, "words"),
        ({"kind": "action_prediction"}, "actions"),
        ({"kind": "supervised", "classes": {"task_family": 4}}, "labels"),
    ],
)
def test_mirrored_views_are_refused_beside_what_knows_sides(
    beside: dict[str, Any], what: str
) -> None:
    views = {"flip": 0.5}

    told = why({"kind": "sim_clr"}, beside, augmentation={"views": views})

    assert f"augmentation.views.flip: found 0.5; allowed: 0 beside {beside['kind']}, whose" in told
    assert f"Or augmentation.flip.{what} says that they name none" in told
    pictures = {"kind": "masked_image"}, {"kind": "sim_clr"}
    assert recipe(*pictures, model=vision_alone(), augmentation={"views": views})


def test_mirrored_views_may_stand_beside_words_that_name_no_side() -> None:
    flip = {"words": {}, "actions": [0], "states": [0]}

    assert recipe(
        {"kind": "sim_clr"}, {"kind": "image_text"},
        augmentation={"views": {"flip": 0.5}, "flip": flip},
    )  # fmt: skip


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("kind", "mask", "told"),
    [
        ("masked_image", {"kind": "tube"}, "kind: found 'tube', which is for clips of several tub"),
        (
            "masked_image",
            {"kind": "explicit", "hidden": [16]},
            "hidden: found 16; allowed: 0 to 15",
        ),
        ("video_mae", {"kind": "explicit", "hidden": [32]}, "hidden: found 32; allowed: 0 to 31"),
        ("masked_image", {"kind": "explicit", "hidden": [1, 1]}, "hidden: found 1 twice; allowed"),
    ],
)
def test_masks_of_what_is_not_there_are_refused(kind: str, mask: dict[str, Any], told: str) -> None:
    assert f"mask.{told}" in why({"kind": kind, "mask": mask}, model=FILMS)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": {**parts(), "joint": {"width": 16, "bias": True}}}, "bias: found true"),
        ({"schedule__steps": True}, "steps: found true"),
        ({"images": {"size": 32, "mean": [True, 0.5, 0.5]}}, "mean: found [true, 0.5, 0.5]"),
    ],
)
def test_true_is_no_number(change: dict[str, Any], field: str) -> None:
    assert f"{field}, which is no number" in why({"kind": "masked_image"}, **change)
