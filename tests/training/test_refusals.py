"""What is said of a recipe that does not hold: places as `--set` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tectum_train.recipe import Recipe, RecipeError, read_recipe


def changed(file: Path, *changes: str) -> Recipe:
    return read_recipe(str(file), changes)


def why(file: Path, *changes: str, **sections: Any) -> str:
    """What is said of the recipe with these sections in its file."""
    tree = yaml.safe_load(file.read_text("utf-8"))
    file.write_text(yaml.safe_dump(tree | sections), "utf-8")
    with pytest.raises(RecipeError) as told:
        changed(file, *changes)
    return str(told.value)


def test_an_objective_is_named_by_its_kind(file: Path) -> None:
    objectives = [{"kind": "image_text"}, {"kind": "masked_image", "weight": -1, "mask": {}}]

    told = why(file, objectives=objectives).splitlines()

    assert told[0] == "tiny.yaml: objectives.masked_image.weight: found -1; allowed: greater than 0"
    assert told[1].startswith("tiny.yaml: objectives.masked_image.mask.kind is missing")


@pytest.mark.parametrize(
    ("objectives", "told"),
    [
        ([{"kind": "image_text"}, {"kind": "image_text", "weight": -1}], "objectives.1.weight"),
        ([{"kind": "image_text"}, {"kind": "masked_imag"}], "objectives.1.kind"),
        ([{"kind": "image_text"}, {"weight": 1}], "objectives.1.kind is missing"),
    ],
    ids=["twice", "misspelt", "missing"],
)
def test_one_whose_kind_names_nothing_is_told_by_its_number(
    file: Path, objectives: list[dict[str, Any]], told: str
) -> None:
    assert why(file, objectives=objectives).startswith(f"tiny.yaml: {told}")


def test_a_sections_own_refusal_begins_with_the_whole_path(file: Path) -> None:
    late = {"kind": "dino", "teacher_temperature": [0.04, 0.07]}

    assert why(file, "schedule.warmup_steps=9").endswith(
        ": schedule.warmup_steps: found 9; allowed: fewer than steps (6)"
    )
    assert why(file, objectives=[late]).startswith(
        "tiny.yaml: objectives.dino.teacher_steps: found 0; allowed: above 0"
    )


def test_a_setting_of_a_mask_without_a_kind_is_told_which_kinds_there_are(file: Path) -> None:
    change = "objectives.masked_image.mask.ratio=0.5"

    assert why(file, change, objectives=[{"kind": "masked_image"}]) == (
        f"--set {change}: objectives.masked_image.mask.kind is missing, and has no default; "
        "allowed: 'random', 'block', 'tube', 'importance', 'explicit'; unknown key "
        "objectives.masked_image.mask.ratio; did you mean objectives.masked_image.mask.ratios?"
    )


def test_a_part_that_stands_on_nothing_names_what_must_be_set(file: Path) -> None:
    told = why(file, "model.text=null")

    assert told == (
        "tiny.yaml with --set model.text=null: model.text: found null; allowed: a section, as "
        "joint needs text; or joint null"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("objectives.masked_image.text_share=2", "found 2; allowed: at most 1"),
        ("objectives=[]", "found []; allowed: at least 1 of them"),
    ],
)
def test_a_list_is_too_short_only_if_it_is(file: Path, change: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        changed(file, change)

    assert str(error.value) == f"--set {change}: {told}"
