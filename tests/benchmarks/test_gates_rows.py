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


def test_the_guide_names_the_recipes_that_there_are_and_no_others() -> None:
    guide = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    column = [line.split("|")[2] for line in guide.splitlines() if line.startswith("| `")]
    named_there = {name for cell in column for name in re.findall(r"`([\w-]+)`", cell)}
    known = set(recipes.named())

    assert named_there <= known
    # A twin is named with the recipe that it is the twin of.
    alone = {name for name in known if name.removesuffix("-small") not in known - {name}}
    assert {name for name in alone - named_there if f"`{name}`" not in guide} == set()
