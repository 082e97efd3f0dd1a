"""Resumed recipes: the run goes on as it was begun, and says what of the recipe it leaves aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tectum_train.recipe import Recipe, RecipeError, read_recipe, resumed_recipe


def begun(recipe: Recipe, *, saved: bool = True) -> Recipe:
    """Leave in the recipe's folder what a run of it leaves there."""
    recipe.folder.mkdir(parents=True)
    (recipe.folder / "recipe.json").write_text(recipe.model_dump_json(), "utf-8")
    if saved:
        recipe.checkpoint.touch()
    return recipe


def edited(file: Path, **settings: object) -> None:
    """The file with other settings, named `section__key`."""
    tree = yaml.safe_load(file.read_text("utf-8"))
    for name, value in settings.items():
        section, _, key = name.partition("__")
        tree[section][key] = value
    file.write_text(yaml.safe_dump(tree), "utf-8")


def resumed(file: Path, *changes: str) -> tuple[Recipe, list[str]]:
    told: list[str] = []
    return resumed_recipe(str(file), changes, tell=told.append), told


def test_a_run_goes_on_as_it_was_begun_and_what_was_edited_since_is_told(file: Path) -> None:
    run = begun(read_recipe(str(file), ["seed=5"]))
    edited(file, optimiser__lr=3e-4, data__test="elsewhere")

    found, told = resumed(file, "seed=5")

    assert found == run
    assert told == [
        "goes on with its own settings; the recipe now differs: "
        f'data.test is "{run.data.test}" here, "elsewhere" in {file}; '
        f"optimiser.lr is 0.001 here, 0.0003 in {file}"
    ]


def test_nothing_is_told_where_nothing_differs(file: Path) -> None:
    run = begun(read_recipe(str(file)))

    assert resumed(file) == (run, [])


def test_a_renamed_run_goes_on_without_a_word_about_its_name(file: Path) -> None:
    run = begun(read_recipe(str(file), ["name=other"]))

    assert resumed(file, "name=other") == (run, [])
    assert run.derived_from == "tiny"


def test_what_is_set_goes_on_top_and_is_not_said_to_be_unused(file: Path) -> None:
    run = begun(read_recipe(str(file)))

    found, told = resumed(file, "optimiser.lr=0.5")

    assert (found.optimiser.lr, found.schedule) == (0.5, run.schedule)
    assert told == []


def test_a_run_that_died_before_its_first_checkpoint_begins_anew_as_it_is_asked_now(
    file: Path,
) -> None:
    run = begun(read_recipe(str(file)), saved=False)
    edited(file, optimiser__lr=3e-4)

    found, told = resumed(file)

    assert found.optimiser.lr == 3e-4
    assert told == [f"{run.folder} has no checkpoint yet: begins anew, with the settings given now"]


def test_what_never_began_begins_without_a_word(file: Path) -> None:
    assert resumed(file) == (read_recipe(str(file)), [])


def test_a_recorded_recipe_that_is_damaged_is_named(file: Path) -> None:
    run = begun(read_recipe(str(file)))
    (run.folder / "recipe.json").write_text("{")

    with pytest.raises(RecipeError, match=r"recipe\.json cannot be read"):
        resumed(file)


@pytest.mark.parametrize("name", ["🤖", 'l\'"été"', "a\\b: #c", "\x7f"])
def test_a_folder_for_runs_may_be_called_anything(file: Path, tmp_path: Path, name: str) -> None:
    output = str(tmp_path / name)

    run = begun(read_recipe(str(file), output=output))

    assert run.folder == tmp_path / name / "tiny-seed0"
    assert resumed_recipe(str(file), output=output) == run


def test_what_an_earlier_version_did_not_know_has_its_default() -> None:
    now = read_recipe("mae-small")
    tree = json.loads(now.identity())
    del tree["data"]["episodes_at_once"]
    other = read_recipe("mae-small", ["data.episodes_at_once=3"])

    assert Recipe.completed(json.dumps(tree)) == json.loads(now.identity())
    assert Recipe.completed(json.dumps(tree)) != json.loads(other.identity())


def test_an_identity_that_no_version_wrote_stands_as_it_is() -> None:
    assert Recipe.completed('{"seed": 3, "colour": "red"}') == {"seed": 3, "colour": "red"}
    tree = {**json.loads(read_recipe("mae-small").identity()), "content": {"codes": "abc"}}
    assert Recipe.completed(json.dumps(tree)) == tree
