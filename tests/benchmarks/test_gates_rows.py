"""The rows of the gates: each can be run, and recipes and documents name those there are."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from tests.checkout import ROOT

from gates_rows import ROWS, Row, named
from gates_rules import Above, Beside, Times
from gates_run import MADE, WANDERED, Places, recipe_of
from tectum_train import recipes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_rows_recipe_reads(row: Row, tmp_path: Path) -> None:
    recipe = recipe_of(row, 1, Places(tmp_path / "results", tmp_path / "runs"))

    assert recipe.seed == 1
    assert recipe.precision == "float32"  # the same on every machine
    assert all(name in {one.name for one in ROWS} for name in row.after)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_frames_and_sentences_find_each_other_five_times_as_often_as_by_chance(name: str) -> None:
    asked = {rule for rule in named(name).rules if isinstance(rule, Times)}

    assert asked == {
        Times("frame → sentence, R@1", "chance", 5),
        Times("sentence → frame, R@1", "chance", 5),
    }


def test_moments_are_aligned_by_so_much_more_than_random_weights_align_them() -> None:
    asked = [rule for rule in named("r3m").rules if isinstance(rule, Above)]

    assert asked == [Above("three moments aligned", ("random-init twin",), by=0.10)]


def test_other_masks_are_held_to_nearly_all_that_random_ones_tell() -> None:
    few = "task from 10% of the labels"
    asked = {row.name: [one for one in row.rules if isinstance(one, Beside)] for row in ROWS}

    assert {name: rules for name, rules in asked.items() if rules} == {
        "mae-block": [Beside(f"frozen trunk → {few}", "mae", 0.95)],
        "mae-importance": [Beside(f"frozen trunk → {few}", "mae", 0.95)],
        "mae-attention": [Beside(f"frozen trunk → {few}", "mae", 0.95)],
        "video-mae": [Beside(f"frozen clip trunk → {few}", "video-mae-random", 0.95)],
    }


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
