"""Places in the picture, as a recipe tells them: each read, each once, and mirrored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.training.tiny import job, parts

from tectum_train.recipe import PlacesConfig, Recipe, RecipeError, read_recipe

PLACES: dict[str, Any] = {"width": 512, "height": 384, "actions": [[0, 1]], "states": [[2, 3]]}
MIRROR: dict[str, Any] = {"actions": [], "states": [], "words": {"left": "right"}}


def test_what_is_said_of_places_is_kept(tmp_path: Path) -> None:
    recipe = job(tmp_path, tmp_path, data__places=PLACES)

    assert recipe.data.places is not None
    assert recipe.data.places.of("actions") == ((0, 1),)
    assert recipe.data.places.of("states") == ((2, 3),)
    assert recipe.data.places.of("words") == ()
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_recipe_from_before_there_were_places_is_the_same_run(tmp_path: Path) -> None:
    recipe = job(tmp_path, tmp_path, augmentation={"flip": MIRROR})
    now = recipe.model_dump(mode="json")
    before = job(tmp_path, tmp_path, augmentation={"flip": MIRROR}).model_dump(mode="json")
    del before["data"]["places"]
    for name in ("exchanged_actions", "exchanged_states"):
        del before["augmentation"]["flip"][name]

    assert Recipe.model_validate(before).model_dump(mode="json") == now


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"actions": [[0, 1], [1, 2]]}, "actions: found 1 twice; allowed: each number once"),
        ({"states": [[3, 3]]}, "states: found 3 twice; allowed: each number once, as the x or y"),
        ({"actions": [], "states": []}, "found [], and states likewise; allowed: at least one"),
        ({"width": 0}, "greater than 0"),
        ({"actions": [[0, -1]]}, "greater than or equal to 0"),
        ({"actions": [[0, 1, 2]]}, "at most 2 items"),
    ],
)
def test_places_that_are_none_are_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        PlacesConfig.model_validate(PLACES | change)

    assert told in str(error.value)


def test_a_number_in_two_places_is_told_with_its_key(file: Path) -> None:
    change = "data.places={width: 512, height: 512, actions: [[0, 1], [1, 2]]}"

    with pytest.raises(RecipeError, match=r"data\.places\.actions: found 1 twice; allowed: each n"):
        read_recipe(str(file), [change])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"data__state": None, "model": parts(actions={"dimensions": 4, "max_steps": 8})},
            "data.places.states: found [[2, 3]]; allowed: [], since this recipe reads no states",
        ),
        (
            {
                "data__action": None,
                "model": parts(
                    actions=None, latent_action=None, world_model=None, pixel_decoder=None
                ),
                "objectives": [{"kind": "image_text"}],
            },
            "data.places.actions: found [[0, 1]]; allowed: [], since this recipe reads no actions",
        ),
    ],
    ids=["states", "actions"],
)
def test_places_that_nobody_reads_are_refused(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError) as error:
        job(tmp_path, tmp_path, data__places=PLACES, **changes)

    assert told in str(error.value)


@pytest.mark.parametrize(
    ("flip", "told"),
    [
        (
            {"actions": [0]},
            "augmentation.flip.actions: found 0; allowed: no number of data.places.actions, as pl",
        ),
        (
            {"states": [1, 3]},
            "augmentation.flip.states: found 3; allowed: no number of data.places.states, as plac",
        ),
        (
            {"exchanged_actions": {0: 2, 1: 3}},
            "augmentation.flip.exchanged_actions: found {0: 2, 1: 3}; allowed: of the place [0, 1] "
            "neither number, or x and y with those of another place in data.places.actions",
        ),
        ({"exchanged_states": {2: 3}}, "exchanged_states: found {2: 3}; allowed: of the place [2"),
    ],
)
def test_a_mirror_does_nothing_else_to_a_place(
    flip: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError) as error:
        job(tmp_path, tmp_path, data__places=PLACES, augmentation={"flip": MIRROR | flip})

    assert told in str(error.value)


@pytest.mark.parametrize(
    ("flip", "places", "told"),
    [
        (None, None, "says that they name none"),
        (MIRROR, PLACES, "says that they name none, and data.places likewise"),
        (MIRROR | {"exchanged_actions": {0: 1}}, None, "says that they name none"),
        (MIRROR, PLACES | {"actions": []}, None),
    ],
)
def test_mirrored_views_are_refused_beside_actions_with_places_or_sides(
    flip: dict[str, Any] | None, places: dict[str, Any] | None, told: str | None, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "objectives": [{"kind": "sim_clr"}, {"kind": "action_prediction"}],
        "augmentation": {"views": {"flip": 0.5}, "flip": flip},
        "data__places": places,
    }

    if told is None:
        assert job(tmp_path, tmp_path, **changes)
        return
    with pytest.raises(ValidationError) as error:
        job(tmp_path, tmp_path, **changes)

    assert f"Or augmentation.flip.actions {told} [type=" in str(error.value)


def test_two_hands_exchange_their_places_and_the_rest_its_signs(tmp_path: Path) -> None:
    hands = {**PLACES, "actions": [[0, 1], [2, 3]]}
    flip = {**MIRROR, "exchanged_actions": {2: 0, 1: 3}, "states": [0]}

    assert job(tmp_path, tmp_path, data__places=hands, augmentation={"flip": flip})
