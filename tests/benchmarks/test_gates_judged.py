"""The episodes that gates train on and are judged by: named if missing, and never mixed up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tests.benchmarks.told import says

from gates_rows import ROWS, Row
from gates_run import (
    MADE,
    WANDERED,
    Places,
    judged_on,
    kept,
    measured,
    measured_again,
    missing_data,
    recipe_of,
    wanted,
)
from tectum_train.recipe import expanded


def test_missing_episodes_are_named(row: Row, places: Places, tmp_path: Path) -> None:
    absent = Row("absent", row.recipe, row.rules, (f"data.test={tmp_path / 'nowhere'}",))

    assert missing_data(row, places) == ""
    assert missing_data(absent, places).startswith(f"{tmp_path / 'nowhere'} is not there yet")


def test_wandering_episodes_that_another_command_made_are_missing(
    row: Row, places: Places, tmp_path: Path
) -> None:
    data, folder = expanded(recipe_of(row, 0, places).data.test), tmp_path / "wandering"
    shutil.copytree(data, folder)
    wandering = Row(row.name, row.recipe, row.rules, (f"data.test={folder}",))

    says(folder, WANDERED)
    assert missing_data(wandering, places) == ""
    says(folder, {**WANDERED, "--wander": "0.7"})
    assert missing_data(wandering, places).startswith(
        f"{folder} was made with --wander 0.7, and `make wandering` makes it with --wander 0.8 "
    )
    (folder / "meta" / "world.json").unlink()
    assert "was made with --wander nothing said" in missing_data(wandering, places)


@pytest.mark.parametrize("option", MADE["judged"])
def test_episodes_to_be_judged_by_that_another_command_made_are_missing(
    option: str, row: Row, places: Places
) -> None:
    rest = {name: value for name, value in MADE["judged"].items() if name != option}
    says(places.data / "judged" / "test", rest)

    assert f"was made with {option} nothing said, and" in missing_data(row, places)
    shutil.rmtree(places.data / "judged")
    assert "`make judged` makes it" in missing_data(row, places)


def test_what_was_measured_on_the_episodes_that_recipes_were_chosen_on_is_shown_and_not_finished(
    row: Row, places: Places, console: Console
) -> None:
    measured(row, 0, places, console)
    (path,) = places.results.iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "judged": ""}))

    found = kept(row, 0, places)

    assert found is not None
    assert found.judged == ""
    assert list(wanted(row, 0, places)) == [row]
    assert measured(row, 0, places, console).judged != ""
    assert list(wanted(row, 0, places)) == []


def test_what_was_measured_on_other_episodes_is_none(
    row: Row, places: Places, console: Console
) -> None:
    measured(row, 0, places, console)
    says(places.data / "judged" / "test", {**MADE["judged"], "--seed": "2001"})

    assert kept(row, 0, places) is None


def test_a_run_is_measured_and_measured_again_on_the_episodes_to_be_judged_by(
    row: Row, places: Places, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[str]()
    run = SimpleNamespace(config=SimpleNamespace(training=SimpleNamespace(commit="some")))
    monkeypatch.setattr("gates_run.fitting_splits", lambda recipe, _: read.append(recipe.data.test))
    monkeypatch.setattr("gates_run.train", lambda *_, **__: run)
    monkeypatch.setattr("gates_run.evaluate_run", lambda *_, **__: [])
    checkpoint = recipe_of(row, 0, places).checkpoint
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()

    first = measured(row, 0, places, console)
    again = measured_again(row, 0, places, console)

    assert again is not None
    assert again.judged == first.judged != ""
    assert read == [str(places.data / "judged" / "test")] * 2


def test_rows_that_learn_from_wandering_episodes_are_judged_by_wandering_ones() -> None:
    places, judged_by = Places(), dict[str, set[str]]()
    for row in ROWS:
        recipe = recipe_of(row, 0, places)
        judges = judged_on(recipe, places).data
        assert judges == recipe.data.model_copy(update={"test": judges.test})
        learnt = "wandering" if "wandering" in Path(recipe.data.train).parts else "other"
        judged_by.setdefault(learnt, set()).add(judges.test)

    assert judged_by == {
        "wandering": {str(places.data / "judged-wandering" / "test")},
        "other": {str(places.data / "judged" / "test")},
    }
