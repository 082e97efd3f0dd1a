"""Minutes of the small recipes: what is told of the steps that were taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from tests.training.tiny import job

from minutes import Taken, recipes, table, taken


def test_a_run_takes_what_its_steps_take_on_the_mean() -> None:
    # Steps of 64 samples took 1 s and 3 s.
    assert Taken("one", 300, 64, (64.0, 64 / 3)).minutes == pytest.approx(300 * 2 / 60)


def test_the_table_tells_size_rate_and_minutes() -> None:
    lines = table([Taken("clip-small", 1200, 64, (32.0,))]).splitlines()

    assert lines[-1] == "| `clip-small` | 1,200 × 64 | 32 | 40.0 |"


def test_every_recipe_for_two_cores_is_measured() -> None:
    names = [recipe.name for recipe in recipes()]

    assert {"clip-small", "beit-small", "world-model-small", "tectum-tiny"} <= set(names)
    assert len(names) == len(set(names))


def test_the_first_steps_are_left_out(tiny_data: Path, tmp_path: Path) -> None:
    recipe = job(tiny_data, tmp_path, objectives=[{"kind": "masked_image"}], schedule__steps=500)

    found = taken(recipe, 40, tmp_path / "short", Console(quiet=True))

    assert (found.recipe, found.steps, found.batch) == ("tiny", 500, 8)
    assert len(found.rates) == 1  # of steps 22 to 41
    assert found.minutes > 0
