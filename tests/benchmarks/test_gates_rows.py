"""The rows of the gates: each can be run, and recipes and documents name those there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.checkout import ROOT

from gates_rows import ROWS, Row, named
from gates_run import Places, recipe_of
from tectum_train import recipes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_rows_recipe_reads(row: Row, tmp_path: Path) -> None:
    recipe = recipe_of(row, 1, Places(tmp_path / "results", tmp_path / "runs"))

    assert recipe.seed == 1
    assert recipe.precision == "float32"  # the same on every machine
    assert all(name in {one.name for one in ROWS} for name in row.after)


@pytest.mark.parametrize("name", recipes.named())
def test_a_recipe_names_rows_that_there_are(name: str) -> None:
    told = re.findall(r"ROW=([\w-]+)", recipes.descriptions()[name])

    assert all(named(row) for row in told)


def test_the_guide_names_every_recipe_that_has_a_row() -> None:
    guide = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    asked = {row.recipe for row in ROWS} - {"multi-task-small"}

    missing = [
        name
        for name in asked
        if f"`{name}`" not in guide and f"`{name.removesuffix('-small')}`" not in guide
    ]
    assert missing == []


def test_the_guide_names_no_recipe_that_is_not_there() -> None:
    guide = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    column = [line.split("|")[2] for line in guide.splitlines() if line.startswith("| `")]
    named_there = {name for cell in column for name in re.findall(r"`([\w-]+)`", cell)}
    known = {*recipes.named(), *(name.removesuffix("-small") for name in recipes.named())}

    assert named_there
    assert named_there <= known
