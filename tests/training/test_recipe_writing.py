"""A recipe that is written out is the same one when it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tectum_train import recipes
from tectum_train.recipe import Recipe, read_recipe
from tectum_train.recipe.writing import as_yaml


def reread(recipe: Recipe, folder: Path) -> Recipe:
    path = folder / "own.yaml"
    path.write_text(as_yaml(recipe), encoding="utf-8")
    return read_recipe(str(path))


@pytest.mark.parametrize("name", recipes.named())
def test_every_recipe_reads_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)

    assert reread(recipe, tmp_path) == recipe


def test_changes_and_what_is_no_text_by_its_type_stay(tmp_path: Path) -> None:
    recipe = read_recipe(
        "multi-task-small",
        [
            "name=1e5",
            "optimiser.eps=1.0e-9",
            "optimiser.clip_norm=null",
            "augmentation.flip={actions: [], states: [1], words: {left: right, 'on': 'off'}}",
            "tasks.sharing={kind: distance, served: image_text}",
        ],
    )

    assert recipe.derived_from == "multi-task-small"
    assert reread(recipe, tmp_path) == recipe
    labelled = read_recipe(
        "supervised-small", ["augmentation.flip={labels: {task_family: {0: 1}}}"]
    )
    assert reread(labelled, tmp_path) == labelled


@example("two\nlines \x85 or three", "\x85")
@example("\u2028", "a\u2029b")
@given(st.text(max_size=200), st.text(max_size=40))
def test_whatever_text_it_holds_comes_back(description: str, trunk: str) -> None:
    recipe = read_recipe("clip-small").model_copy(
        update={"description": description, "trunk": trunk}
    )

    tree = yaml.safe_load(as_yaml(recipe))

    assert (tree["description"], tree["trunk"]) == (description, trunk)


def test_kinds_lead_lists_of_values_stand_on_a_line_and_the_description_is_last() -> None:
    lines = as_yaml(read_recipe("clip-small")).splitlines()

    assert lines[0] == "name: clip-small"
    assert "  - kind: image_text" in lines
    assert "  mean: [0.5, 0.5, 0.5]" in lines
    assert [line for line in lines if line and line[0] != " "][-1] == "description: |"
    assert lines[-1].startswith("  ")
