"""`tectum train --fields` and `--show`: what a recipe may say, and all that one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.running import invoke

from tectum_cli.extras import console
from tectum_train.recipe import read_recipe

# ---------------------------------------------------------------- --fields


def test_fields_of_a_section_are_told_with_what_they_take_and_their_defaults() -> None:
    result = invoke("train", "--fields", "schedule")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "schedule: a section; must be given"
    assert "schedule.steps: a whole number, at least 1; must be given" in lines
    at = lines.index("schedule.final_share: a number from 0 to 1; default 0.01")
    assert lines[at + 1] == "    Last learning rate as a share of the peak."


@pytest.mark.parametrize(
    "arguments", [["--fields", "schedule.steps"], ["schedule.steps", "--fields"]]
)
def test_a_single_field_is_told_alone(arguments: list[str]) -> None:
    assert invoke("train", *arguments).stdout.splitlines() == [
        "schedule.steps: a whole number, at least 1; must be given",
        "    Optimiser steps in all.",
    ]


def test_without_a_path_it_begins_at_the_top() -> None:
    result = invoke("train", "--fields")

    lines = result.stdout.splitlines()
    assert lines[0] == "a recipe: A whole run."
    assert "optimiser: a section; default {}" in lines
    assert lines[-1] == (
        "tectum train --fields PATH says what stands there; docs/recipes.md has all."
    )


def test_objectives_are_named_by_their_kinds() -> None:
    lines = invoke("train", "--fields", "objectives").stdout.splitlines()

    assert lines[0].startswith("objectives: a list of at least 1, each one of the kinds image_text")
    assert "objectives.image_text: Contrast frames with instructions, both ways." in lines


def test_kinds_of_a_section_are_told_apart() -> None:
    lines = invoke("train", "--fields", "objectives.beit.mask.hint").stdout.splitlines()

    assert lines[0] == (
        "objectives.beit.mask.hint, kind importance: a number from 0 to 1; default 0.5"
    )


def test_an_unknown_path_is_answered_with_the_nearest() -> None:
    result = invoke("train", "--fields", "schedule.step")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "no field 'schedule.step'; did you mean schedule.steps" in result.stderr
    assert "`tectum train --fields` begins at the top" in result.stderr


def test_fields_keep_to_the_terminals_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "width", 60)

    lines = invoke("train", "--fields", "data").stdout.splitlines()

    assert len(lines) > 20
    assert max(map(len, lines)) <= 70  # signs for bold are no columns


# ---------------------------------------------------------------- --show


def test_a_recipe_that_is_shown_can_be_kept_and_read_as_the_same(tmp_path: Path) -> None:
    changes = ["schedule.steps=7", "schedule.warmup_steps=2", "name=own"]
    given = [word for one in changes for word in ("--set", one)]

    result = invoke("train", "multi-task-small", "--show", *given, "--output", tmp_path)

    path = tmp_path / "own.yaml"
    path.write_text(result.stdout, encoding="utf-8")
    assert result.exit_code == 0
    assert read_recipe(str(path)) == read_recipe("multi-task-small", changes, str(tmp_path))
    assert "  steps: 7" in result.stdout.splitlines()
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_shown_is_checked_first() -> None:
    result = invoke("train", "clip-small", "--show", "--set", "schedule.step=7")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "unknown key schedule.step; did you mean schedule.steps?" in result.stderr


def test_to_show_there_must_be_a_recipe() -> None:
    result = invoke("train", "--show")

    assert result.exit_code == 2
    assert "--show wants a RECIPE" in result.stderr


@pytest.mark.parametrize("two", [["--list", "--show"], ["--fields", "--list"]])
def test_one_thing_is_told_at_a_time(two: list[str]) -> None:
    result = invoke("train", "clip-small", *two)

    assert result.exit_code == 2
    assert "--list, --show and --fields are for one at a time" in result.stderr
