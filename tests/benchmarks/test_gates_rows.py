"""The rows of the gates: each can be run, and recipes and documents name those there are."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from tests.checkout import ROOT

from gates_rows import ROWS, Row, named
from gates_run import MADE, WANDERED, Places, recipe_of
from tectum_train import recipes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_rows_recipe_reads(row: Row, tmp_path: Path) -> None:
    recipe = recipe_of(row, 1, Places(tmp_path / "results", tmp_path / "runs"))

    assert recipe.seed == 1
    assert recipe.precision == "float32"  # the same on every machine
    assert all(name in {one.name for one in ROWS} for name in row.after)


def test_rows_that_the_closing_table_compares_have_one_trunk() -> None:
    trunks = [recipe_of(row, 0, Places()).model.vision for row in ROWS if row.family]

    assert len(trunks) > 5
    assert all(trunk == trunks[0] for trunk in trunks)
    assert {row.family for row in ROWS} == {"", "contrastive", "masked"}


def test_make_gates_makes_the_wandering_episodes_for_the_rows_that_learn_from_them() -> None:
    wandering = {row.name for row in ROWS if "wandering" in recipe_of(row, 0, Places()).data.train}
    rule = re.search(r"^WANDERERS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert rule is not None
    assert set(rule[1].split()) == wandering


def test_make_makes_the_wandering_episodes_that_the_gates_ask_for() -> None:
    told = re.search(
        r"^\$\(WANDERING\):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )

    assert told is not None
    words = told[1].replace("\\", "").split()
    assert WANDERED.items() <= dict(pairwise(words)).items()
    assert {one for one in words if one.startswith("--")} == {"--out", *WANDERED}


@pytest.mark.parametrize(
    ("name", "target"), [("judged", "JUDGED"), ("judged-wandering", "JUDGED_WANDERING")]
)
def test_make_makes_the_episodes_that_rows_are_judged_by(name: str, target: str) -> None:
    told = re.search(
        rf"^\$\({target}\):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )

    assert told is not None
    words = told[1].replace("\\", "").split()
    assert {one for one in words if one.startswith("--")} == {"--out", *MADE[name]}
    assert all(f" {k} {v}".rstrip() in " ".join(words) for k, v in MADE[name].items())


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
