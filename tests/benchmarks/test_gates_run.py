"""One run of the gates: kept once it is finished, gone on with, and never mixed with another's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import gates
from gates_rows import ROWS, Row, named
from gates_run import (
    Places,
    identity,
    kept,
    measured,
    measured_again,
    recipe_of,
    wanted,
)
from tectum_train import recipes
from tectum_train.engine import run as engine
from tectum_train.engine import stepping
from tectum_train.engine.run import Interrupted
from tectum_train.evaluation.latent_action.ceiling import Supervised
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.recipe import expanded, read_recipe

pytestmark = pytest.mark.usefixtures("few_draws")
ANOTHER = Measure("another", 0.5)


def test_a_finished_run_leaves_its_measures_and_is_not_run_again(
    row: Row, places: Places, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(row, 1, places, console)
    monkeypatch.setattr("gates_run.train", None)

    assert measured(row, 1, places, console) == found == kept(row, 1, places)
    assert (found.row, found.seed, found.steps, found.batch_size) == ("tiny", 1, 6, 8)
    assert found.changes == ["schedule.checkpoint_every=2"]
    assert any("masked image" in measure.name for measure in found.measures)
    assert found.cpu_seconds > 0
    assert found.evaluated_in is not None
    assert found.evaluated_in[0] > 0
    assert [path.name for path in places.results.iterdir()] == ["tiny-seed1.json"]


def test_another_recipe_is_another_run(row: Row, places: Places, console: Console) -> None:
    measured(row, 0, places, console)
    changed = Row(row.name, row.recipe, row.rules, (*row.changes, "optimiser.lr=0.002"))

    assert kept(row, 0, places) is not None
    assert kept(changed, 0, places) is None
    assert recipe_of(changed, 0, places).folder != recipe_of(row, 0, places).folder


def test_words_places_and_the_seed_make_no_other_run(row: Row, places: Places) -> None:
    recipe = recipe_of(row, 0, places)
    path = Path(row.recipe)
    path.write_text(path.read_text().replace("Six steps", "Some steps"))

    assert identity(recipe_of(row, 1, places)) == identity(recipe)


def test_an_interrupted_run_goes_on_and_counts_all_its_seconds(
    row: Row, places: Places, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = stepping.take_step

    def interrupted(number: int, *rest: object) -> object:
        if number == 3:
            raise Interrupted("saved")
        return step(number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "take_step", interrupted)
    with pytest.raises(Interrupted):
        measured(row, 0, places, console)
    file = recipe_of(row, 0, places).folder / "spent.json"
    before = json.loads(file.read_text())
    assert kept(row, 0, places) is None
    done = list[int]()

    def counted(number: int, *rest: object) -> object:
        done.append(number)
        return step(number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "take_step", counted)

    found = measured(row, 0, places, console)

    assert done == [2, 3, 4, 5]
    spent = json.loads(file.read_text())  # measuring is not in it
    assert found.cpu_seconds == round(spent["cpu"], 1)
    assert spent["cpu"] > before["cpu"] > 0


def test_a_checkpoint_of_something_else_is_left_for_a_new_beginning(
    row: Row, places: Places, console: Console
) -> None:
    recipe = recipe_of(row, 0, places)
    recipe.folder.mkdir(parents=True)
    engine.train(recipe.model_copy(update={"precision": "bfloat16"}), console=console)

    assert measured(row, 0, places, console).steps == 6


def test_the_report_is_written_after_each_run(
    row: Row, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "ROWS", (row,))
    file = tmp_path / "objectives.md"

    assert gates.series([row], [2], places, file) == []

    assert file.read_text().startswith("# Objectives\n")
    assert "| [tiny](gates/tiny.md) |" in file.read_text()
    assert (places.results / "tiny.md").read_text().startswith("# tiny\n")
    assert "FAIL (1 of 1 run)" in file.read_text()  # six steps teach nothing


def test_a_run_that_breaks_does_not_end_the_series(
    row: Row, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Row("bad", row.recipe, row.rules, ("optimiser.lr=1e30", "schedule.warmup_steps=0"))
    monkeypatch.setattr(gates, "ROWS", (bad, row))

    (broken,) = gates.series([bad, row], [0], places, tmp_path / "objectives.md")

    assert broken.startswith("bad, seed 0: FloatingPointError: step ")
    assert kept(row, 0, places) is not None


def test_what_a_row_begins_from_is_run_first_and_its_folder_is_filled_in(
    row: Row, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Row("later", row.recipe, row.rules, ("description='from {tiny}'",), after=("tiny",))
    monkeypatch.setattr("gates_run.named", {"tiny": row}.__getitem__)

    assert list(wanted(later, 0, places)) == [row, later]
    assert recipe_of(later, 3, places).description == (f"from {recipe_of(row, 3, places).folder}")


def test_other_data_are_another_run(row: Row, places: Places, tmp_path: Path) -> None:
    first = identity(recipe_of(row, 0, places))
    data = expanded(recipe_of(row, 0, places).data.test)
    shutil.copytree(data, tmp_path / "other")
    moved = Row(row.name, row.recipe, row.rules, (*row.changes, f"data.test={tmp_path / 'other'}"))

    same = identity(recipe_of(moved, 0, places))
    world = tmp_path / "other" / "meta" / "world.json"
    world.write_text(world.read_text() + "\n")

    assert same == first
    assert identity(recipe_of(moved, 0, places)) != first


def test_another_trunk_to_begin_with_is_another_run(
    row: Row, places: Places, tmp_path: Path
) -> None:
    trunk = tmp_path / "trunk"
    trunk.mkdir()
    (trunk / "model.safetensors").write_bytes(b"weights")
    begun = Row(row.name, row.recipe, row.rules, (*row.changes, f"trunk={trunk}"))

    first = identity(recipe_of(begun, 0, places))
    (trunk / "README.md").write_text("words")
    same = identity(recipe_of(begun, 0, places))
    (trunk / "model.safetensors").write_bytes(b"others")

    assert same == first
    assert identity(recipe_of(begun, 0, places)) != first
    assert identity(recipe_of(row, 0, places)) != first


def test_results_of_before_evaluation_was_timed_still_count(
    row: Row, places: Places, console: Console
) -> None:
    found = measured(row, 0, places, console)
    (path,) = places.results.iterdir()
    told = json.loads(path.read_text())
    del told["evaluated_in"]
    for measure in told["measures"]:
        del measure["part"]
    path.write_text(json.dumps(told))

    before = kept(row, 0, places)

    assert before is not None
    assert before.evaluated_in is None
    assert before.wall_seconds == found.wall_seconds


def test_results_of_another_version_count_as_not_run(
    row: Row, places: Places, console: Console
) -> None:
    measured(row, 0, places, console)
    (path,) = places.results.iterdir()
    path.write_text(json.dumps({"row": "tiny", "measures": []}))

    assert kept(row, 0, places) is None


def test_a_result_without_its_folder_is_nothing_to_begin_from(
    row: Row, places: Places, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Row("later", row.recipe, row.rules, ("description='from {tiny}'",), after=("tiny",))
    monkeypatch.setattr("gates_run.named", {"tiny": row}.__getitem__)
    measured(row, 0, places, console)
    there = list(wanted(later, 0, places))
    shutil.rmtree(places.runs)

    assert there == [later]
    assert next(iter(wanted(later, 0, places))) == row
    assert kept(row, 0, places) is None


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("latent-action", True),
        ("latent-action-vq", True),
        ("latent-action-latents", True),
        ("latent_action-alone", False),
        ("mae", False),
    ],
)
def test_latent_actions_are_held_up_against_the_same_networks_that_are_told_the_answer(
    name: str, held: bool, places: Places, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def evaluated(*_: object, **how: object) -> list[Measure]:
        asked.append(how["supervised"])
        return [ANOTHER]

    run = SimpleNamespace(config=SimpleNamespace(training=SimpleNamespace(commit="some")))
    monkeypatch.setattr("gates_run.fitting_splits", lambda *_: None)
    monkeypatch.setattr("gates_run.train", lambda *_, **__: run)
    monkeypatch.setattr("gates_run.evaluate_run", evaluated)

    measured(named(name), 0, places, console)

    (supervised,) = asked
    assert isinstance(supervised, Supervised) is held
    if isinstance(supervised, Supervised):
        assert supervised._model == read_recipe("latent-action-vq-small").model
        assert supervised._kept == places.runs / "taught.json"


@pytest.mark.parametrize(
    ("name", "probed"),
    [("mae", True), ("supervised", True), ("mae-block", True), ("world-model", True),
     ("mlm", False), ("latent-action", False), ("multi-task", False), ("image_text-alone", False)],
)  # fmt: skip
def test_a_frozen_trunk_is_asked_where_the_row_reads_the_answer(name: str, probed: bool) -> None:
    assert named(name).probed is probed


# ---------------------------------------------------------------- measured again


def test_a_finished_run_is_measured_again_and_what_is_known_of_its_training_stays(
    row: Row, places: Places, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measured(row, 0, places, console)
    spent = (recipe_of(row, 0, places).folder / "spent.json").read_text()
    monkeypatch.setattr(engine, "take_step", None)  # no step is taken
    monkeypatch.setattr("gates_run.commit", lambda: "later")
    monkeypatch.setattr("gates_run.evaluate_run", lambda *_, **__: [*before.measures, ANOTHER])

    found = measured_again(row, 0, places, console)

    assert found is not None
    assert found == replace(
        before, measured_by="later", measures=[*before.measures, ANOTHER],
        evaluated_in=found.evaluated_in,
    )  # fmt: skip
    assert kept(row, 0, places) == found
    assert (recipe_of(row, 0, places).folder / "spent.json").read_text() == spent


def test_it_measures_the_same_again(row: Row, places: Places, console: Console) -> None:
    before = measured(row, 0, places, console)

    again = measured_again(row, 0, places, console)

    assert again is not None
    assert again.measures == before.measures


def test_what_is_not_finished_or_has_no_checkpoint_is_not_measured_again(
    row: Row, places: Places, console: Console
) -> None:
    never = measured_again(row, 0, places, console)
    before = measured(row, 0, places, console)
    shutil.rmtree(places.runs)

    assert never is None
    assert measured_again(row, 0, places, console) is None
    assert kept(row, 0, places) == before
    assert not places.runs.exists()


def test_another_runs_checkpoint_gives_no_numbers(
    row: Row, places: Places, console: Console
) -> None:
    before = measured(row, 0, places, console)
    (path,) = places.results.iterdir()
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "commits": "another"}))

    with pytest.raises(ValueError, match="its numbers are of a run by another"):
        measured_again(row, 0, places, console)
    assert json.loads(path.read_text())["measured_by"] == before.measured_by


def test_a_series_measured_again_trains_nothing_and_writes_the_table(
    row: Row, places: Places, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "ROWS", (row,))
    measured(row, 0, places, console)
    monkeypatch.setattr("gates_run.evaluate_run", lambda *_, **__: [ANOTHER])
    monkeypatch.setattr(engine, "take_step", None)

    broken = gates.series([row], [0, 1], places, tmp_path / "objectives.md", again=True)

    assert broken == []
    assert [path.name for path in places.results.iterdir()] == ["tiny-seed0.json"]  # no numbers
    assert (
        "no measure 'masked image'; there are: another" in (tmp_path / "objectives.md").read_text()
    )


# ---------------------------------------------------------------- the rows that there are


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_a_recipe_of_the_package_and_compares_to_rows_there_are(row: Row) -> None:
    assert row.recipe in recipes.named()
    assert recipe_of(row, 0, Places()).schedule.steps > 0
    assert row.rules
    assert {name for rule in row.rules for name in rule.rows} <= {one.name for one in ROWS}


def test_rows_have_names_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    with pytest.raises(ValueError, match="no row 'maw'; there are: clip, clip-plain"):
        named("maw")
