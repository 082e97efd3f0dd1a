"""What is said of a recipe's fields: all of them, in words that hold, wherever they stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from tests.checkout import ROOT

from tectum_train import recipes
from tectum_train.recipe import RecipeError, read_recipe
from tectum_train.recipe.allowed import allowed, shown
from tectum_train.recipe.fields import Field, Section, sections, sections_at
from tectum_train.recipe.reference import MARK, anchor, renewed

DOCUMENT = ROOT / "docs" / "recipes.md"
SECTIONS = pytest.mark.parametrize("section", sections(), ids=lambda one: one.title or "whole")


def only(path: str) -> Field:
    """The one field at a path."""
    section, *_ = sections_at(path)
    (field,) = section.fields
    return field


def said(field: Field) -> str:
    """What it takes."""
    return field.allowed(lambda _, called: called)


def keys(tree: Any, place: str = "") -> set[str]:
    """Every path in a recipe's own tree; objectives by their kind."""
    if isinstance(tree, list):
        kinds = [one for one in tree if isinstance(one, Mapping)]
        return set().union(*(keys(one, f"{place}{one['kind']}.") for one in kinds))
    if not isinstance(tree, Mapping):
        return set()
    return {f"{place}{key}" for key in tree}.union(
        *(keys(one, f"{place}{key}.") for key, one in tree.items())
    )


# ---------------------------------------------------------------- all of them


@SECTIONS
def test_every_field_has_a_meaning_and_says_what_it_takes(section: Section) -> None:
    assert section.meaning
    assert [field.name for field in section.fields if not field.meaning] == []
    assert [field.name for field in section.fields if not said(field)] == []


@SECTIONS
def test_meanings_are_in_yamls_words(section: Section) -> None:
    words = " ".join([section.meaning, *(field.meaning for field in section.fields)])

    assert re.findall(r"\b(None|True|False)\b|\(\)", words) == []


@pytest.mark.parametrize("name", ["multi-task", "video-mae", "world-model", "dino", "beit"])
def test_whatever_a_recipe_says_is_found_by_its_path(name: str) -> None:
    paths = keys(read_recipe(name).model_dump(mode="json"))

    assert len(paths) > 50
    assert [path for path in paths if not sections_at(path)] == []


def test_what_must_be_given_is_what_a_recipe_is_refused_without() -> None:
    needed = {field.name for field in sections_at("")[0].fields if field.default is None}

    assert needed == {
        "name", "description", "data", "images", "model", "objectives", "schedule",
    }  # fmt: skip


# ---------------------------------------------------------------- one of them


def test_a_field_says_its_default_as_a_file_would() -> None:
    assert only("schedule.steps").default is None
    assert only("optimiser.eps").default == "1e-08"
    assert only("optimiser.betas").default == "[0.9, 0.95]"
    assert only("trunk").default == "null"
    assert only("derived_from").default == '""'
    assert only("augmentation").default == "{}"
    assert only("objectives.beit.mask").default == "{kind: block}"
    assert only("tasks.weighting").default == "{kind: fixed}"
    assert only("objectives.beit.kind").default is None


def test_a_field_of_a_base_class_means_what_that_says() -> None:
    assert only("objectives.dino.weight").meaning == "Factor of its loss in the sum."


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("schedule.steps", "a whole number, at least 1"),
        ("schedule.batch_size", "a whole number from 1 to 1048576"),
        ("schedule.final_share", "a number from 0 to 1"),
        ("schedule.micro_batch", "a whole number, at least 1, or `null`"),
        ("seed", "a whole number, at least 0 and below 2^63"),
        ("precision", "one of `float32`, `bfloat16`"),
        ("name", "text"),
        ("optimiser.betas", "a list of 2, each a number, at least 0 and below 1"),
        ("data.pair_steps", "a list of at least 1, each a whole number, at least 1"),
        ("model.vision.stem.widths", "a list of 1 to 8, each a whole number, at least 1"),
        ("model.vision.stem", "section, or `null`"),
        ("model.vision.class_token", "`true` or `false`"),
        ("tasks.sharing", "one of the kinds distance, cross_stitch, or `null`"),
        ("objectives.supervised.classes",
         "a mapping of at least 1, each value a whole number, at least 2"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_told_in_plain_words(path: str, words: str) -> None:
    assert said(only(path)) == words


def test_a_schema_without_words_is_no_silent_gap() -> None:
    with pytest.raises(ValueError, match="found a schema"):
        allowed({"type": "object"}, lambda _, called: called, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (14.285714285714285, "14.2857"), (10.0, "10"), ({"a": [None]}, "{a: [null]}")],
)
def test_values_are_shown_as_yaml(value: object, text: str) -> None:
    assert shown(value) == text


# ---------------------------------------------------------------- where they stand


def test_a_path_to_a_section_has_its_field_and_all_that_is_in_it() -> None:
    field, section = sections_at("data.clip")

    assert [one.name for one in field.fields] == ["clip"]
    assert [one.name for one in section.fields] == ["frames", "steps"]
    assert section.title == "data.clip"


def test_a_section_that_stands_in_several_places_is_found_in_each() -> None:
    _, trunk = sections_at("model.text.transformer")
    _, decoder = sections_at("model.world_model.decoder")

    assert trunk.fields == decoder.fields
    assert (trunk.title, decoder.title) == ("model.text.transformer", "model.world_model.decoder")


def test_a_section_of_several_kinds_is_told_in_all_of_them() -> None:
    _, *kinds = sections_at("tasks.sharing")

    assert [one.title for one in kinds] == [
        "tasks.sharing, kind distance", "tasks.sharing, kind cross_stitch",
    ]  # fmt: skip
    assert sections_at("tasks.sharing.distance") == (kinds[0],)


def test_a_field_that_several_kinds_have_is_told_of_each() -> None:
    found = sections_at("objectives.masked_image.mask.ratios")

    assert [one.kind for one in found] == ["random", "block", "tube", "importance"]


def test_objectives_are_listed_by_their_kinds_and_told_one_by_one() -> None:
    field, *kinds = sections_at("objectives")

    assert [one.name for one in field.fields] == ["objectives"]
    assert {one.kind for one in kinds} >= {"image_text", "masked_image", "video_mae"}
    assert [one for one in kinds if one.fields or not one.meaning] == []
    assert sections_at("objectives.dino")[0].fields[0].name == "kind"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("schedule.step", "no field 'schedule.step'; did you mean schedule.steps"),
        ("image_text", "no field 'image_text'; did you mean objectives.image_text?"),
        ("nothing.like.it", "no field 'nothing.like.it'; a recipe has name, derived_from, "),
        ("schedule.steps.x", "schedule.steps has nothing below it"),
        ("model.vision.pooling_", "did you mean model.vision.pooling"),
        ("objectives.clip", "objectives has image_text, masked_image, "),
    ],
)
def test_a_path_that_there_is_not_is_answered_with_near_ones(path: str, answer: str) -> None:
    with pytest.raises(RecipeError) as refused:
        sections_at(path)

    assert answer in str(refused.value)


# ---------------------------------------------------------------- the document


def test_the_document_is_what_the_sources_say() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert renewed(text) == text, "run scripts/generate_recipe_fields.sh"


def test_the_documents_links_lead_somewhere() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    headings = [anchor(one) for one in re.findall(r"^##? (.*)$", text, re.MULTILINE)]

    links = set(re.findall(r"\]\(#(.*?)\)", text))

    assert len(headings) == len(set(headings)) == len(sections()) + 1
    assert len(links) > 50
    assert links - set(headings) == set()


def test_what_is_written_by_hand_stays_and_a_lost_mark_is_told() -> None:
    made = renewed(f"# By hand\n\n{MARK}\n\nOld.\n")

    assert made.startswith(f"# By hand\n\n{MARK}\n\n## The whole recipe\n")
    assert "Old." not in made
    with pytest.raises(ValueError, match="found no line '<!-- From here on"):
        renewed("# By hand\n")


def test_the_documents_commands_are_accepted() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition(MARK)[0]
    commands = re.findall(r"^tectum train (\S+)((?: --set (?:'[^']*'|\S+))+)", text, re.MULTILINE)

    made = [
        read_recipe(name, [one.strip("'") for one in re.findall(r"--set ('[^']*'|\S+)", changes)])
        for name, changes in commands
    ]

    assert len(made) == 4
    assert {name for name, _ in commands} <= recipes.named().keys()
