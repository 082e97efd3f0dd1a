"""Identities: which of a recipe's settings make another run, and that all others do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tectum_train import recipes
from tectum_train.recipe import read_recipe

LEFT_OUT = {
    "derived_from", "description", "output", "data.cache", "data.test", "schedule.checkpoint_every",
}  # fmt: skip
"""Words, where and how often a run keeps its files, and the held-out episodes."""


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a tree, by its dotted path; lists are one."""
    if not isinstance(tree, dict) or not tree:
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{path}.{key}".removeprefix("."))


@pytest.mark.parametrize("name", [one for one in recipes.named() if "beit" not in one])  # a file's
def test_an_identity_is_all_of_a_recipe_but_what_makes_no_other_run(name: str) -> None:
    recipe = read_recipe(name)

    settings = dict(leaves(json.loads(recipe.model_dump_json())))

    kept = {path: value for path, value in settings.items() if path not in LEFT_OUT}
    assert dict(leaves(json.loads(recipe.identity()))) == kept
    assert settings.keys() - kept.keys() == LEFT_OUT


@pytest.mark.parametrize(
    "change",
    [
        "description=longer",
        "output=elsewhere",
        "data.cache=here",
        "data.test=there",
        "schedule.checkpoint_every=7",
    ],
)
def test_words_folders_and_held_out_episodes_do_not_make_another_run(change: str) -> None:
    assert read_recipe("tectum-tiny", [change]).identity() == read_recipe("tectum-tiny").identity()


def test_a_renamed_recipe_says_what_it_was_called_and_is_no_other_run_for_it() -> None:
    renamed = read_recipe("tectum-tiny", ["name=first-steps"])

    assert (renamed.name, renamed.derived_from) == ("first-steps", "tectum-tiny")
    assert read_recipe("tectum-tiny", ["seed=1"]).derived_from == ""
    unknown = renamed.model_copy(update={"derived_from": ""})
    assert unknown.identity() == renamed.identity()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tectum-tiny", "data.train=elsewhere"),
        ("tectum-tiny", "data.camera=another"),
        ("tectum-tiny", "data.episodes_at_once=3"),
        ("tectum-tiny", "augmentation.shift=2"),
        ("simclr-small", "augmentation.views.colour=0.1"),
        ("tectum-tiny", "images.mean=[0.4, 0.5, 0.5]"),
        ("tectum-tiny", "model.joint.width=8"),
        ("tectum-tiny", "trunk=embedded"),
        ("tectum-tiny", "objectives.masked_image.weight=2"),
        ("multi-task-small", "tasks.normalise=chance"),
        ("tectum-tiny", "optimiser.lr=1e-4"),
        ("tectum-tiny", "schedule.steps=700"),
        ("tectum-tiny", "precision=float32"),
        ("tectum-tiny", "seed=7"),
    ],
)
def test_what_is_learnt_makes_another_run(name: str, change: str) -> None:
    assert read_recipe(name, [change]).identity() != read_recipe(name).identity()
