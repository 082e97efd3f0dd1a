"""The planning benchmark: what it concludes from distances, and that it goes on where it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, ttest_1samp

import planning
from gates_planning import AFTER, Planned, Training
from gates_rows import named
from gates_run import Places, identity, identity_with, recipe_of

METRES = st.lists(st.integers(0, 400), min_size=3, max_size=20).map(
    lambda millimetres: [place / 1000 for place in millimetres]
)


def episode(planned: float, other: float) -> dict[str, list[float]]:
    """One in which all arms but the planner end alike."""
    arms = ("world model", "copy-last dynamics", "random actions", "straight to the goal")
    return {arm: [0.2, planned if arm == "world model" else other] for arm in arms}


def kept(path: Path, *episodes: dict[str, list[float]]) -> planning.Kept:
    found = planning.Kept(path / "ways.jsonl", {"bundle": "b"})
    for one in episodes:
        found.add(one)
    return found


# ---------------------------------------------------------------- what is concluded


@given(METRES)
def test_an_interval_leaves_out_what_a_t_test_rejects(values: list[float]) -> None:
    middle, half = planning.mean_of(values)

    assert middle == pytest.approx(np.mean(values))
    if half > 0:
        found = ttest_1samp(values, 0).confidence_interval(0.95)
        assert (middle - half, middle + half) == pytest.approx((found.low, found.high))


def test_an_interval_is_about_what_resampling_gives() -> None:
    values = np.random.default_rng(0).exponential(size=60)

    middle, half = planning.mean_of(values.tolist())

    found = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert (middle - half, middle + half) == pytest.approx((found.low, found.high), rel=0.1)


def test_nearer_in_nearly_every_episode_passes_however_far_goals_lie_apart() -> None:
    goals = [0.01, 0.1, 0.2, 0.4, 0.05, 0.3]

    assert planning.verdict(goals, [goal + 0.01 + goal / 100 for goal in goals]) == "PASS"


@pytest.mark.parametrize(
    "control",
    [
        pytest.param([0.1, 0.2, 0.3, 0.1], id="the same"),
        pytest.param([0.05, 0.1, 0.2, 0.05], id="nearer"),
        pytest.param([0.1, 0.2, 0.3, 0.5], id="further in one"),
    ],
)
def test_what_chance_may_have_done_fails(control: list[float]) -> None:
    assert planning.verdict([0.1, 0.2, 0.3, 0.1], control) == "FAIL"


def test_the_report_holds_the_planner_to_every_control(tmp_path: Path) -> None:
    nearer = kept(tmp_path, episode(0.04, 0.30), episode(0.05, 0.32), episode(0.06, 0.31))

    said = planning.report(nearer, "Settings.")

    assert "| world model | 2 of 3 | 5.0 [2.5, 7.5] |  |  |" in said
    assert "| random actions | 0 of 3 | 31.0 [28.5, 33.5] | -26.0 [-28.5, -23.5] | PASS |" in said
    assert "| standing still | 0 of 3 | 20.0 [20.0, 20.0] |" in said
    assert "Verdict: **PASS**" in said


def test_one_control_that_is_not_beaten_is_enough_to_fail(tmp_path: Path) -> None:
    nearer_than_two = kept(tmp_path, episode(0.25, 0.30), episode(0.26, 0.33))

    assert "Verdict: **FAIL**" in planning.report(nearer_than_two, "Settings.")


def test_what_is_left_for_the_table_of_gates_has_the_reports_numbers(tmp_path: Path) -> None:
    nearer = kept(tmp_path, episode(0.04, 0.30), episode(0.05, 0.32), episode(0.06, 0.31))

    found = planning.summed_up(nearer, "b", {"horizon": 3})

    planner, *others = found.arms
    assert (planner.arm, planner.reached, planner.difference) == ("world model", 2, None)
    assert planner.centimetres == (5.0, 2.5, 7.5)
    assert {one.arm: one.verdict for one in others} == {
        "copy-last dynamics": "PASS", "random actions": "PASS", "standing still": "PASS",
        "straight to the goal": "",
    }  # fmt: skip
    assert others[1].difference == (-26.0, -28.5, -23.5)
    assert (found.episodes, found.near, found.verdict) == (3, 5.0, "PASS")
    assert Planned.of(found.as_json()) == found


def test_a_bundles_run_is_the_rows_recipe_and_what_it_has_in_its_place(tmp_path: Path) -> None:
    places, written = Places(runs=tmp_path), tmp_path / "recipe.json"
    changes = ("schedule.steps=4500", "objectives=[{kind: world_model, weight: 2}]", "name=longer")
    row = named(AFTER)
    recipe = recipe_of(replace(row, changes=changes), 2, places)

    unknown = planning.training_of(tmp_path / "bundle", places)
    written.write_text('{"name": "of another version"}')
    older = planning.training_of(tmp_path / "bundle", places)
    written.write_text(recipe_of(row, 1, places).model_dump_json())
    same = planning.training_of(tmp_path / "bundle", places)
    written.write_text(recipe.model_dump_json())
    longer = planning.training_of(tmp_path / "bundle", places)

    assert unknown is older is None
    assert same == Training(row.recipe, (), 1, identity(recipe_of(row, 1, places)))
    assert longer is not None
    assert (longer.seed, [one.partition("=")[0] for one in longer.changes]) == (
        2,
        ["objectives", "schedule.steps"],
    )
    again = recipe_of(replace(row, changes=longer.changes), 2, places)
    assert again.objectives == recipe.objectives
    assert longer.identity == identity(again) != same.identity
    assert identity_with(longer.changes, 2, places) == longer.identity
    assert identity_with(("schedule.pace=1",), 2, places) == ""
    found = planning.summed_up(kept(tmp_path, *[episode(0.1, 0.2)] * 2), "b", {}, longer)
    assert Planned.of(found.as_json()) == found


# ---------------------------------------------------------------- going on


def test_what_was_acted_is_there_after_a_cut(tmp_path: Path) -> None:
    kept(tmp_path, episode(0.1, 0.2), episode(0.3, 0.4))

    assert kept(tmp_path).episodes == [episode(0.1, 0.2), episode(0.3, 0.4)]


def test_episodes_of_another_bundle_are_not_mixed_in(tmp_path: Path) -> None:
    kept(tmp_path, episode(0.1, 0.2))

    with pytest.raises(SystemExit, match="another bundle's"):
        planning.Kept(tmp_path / "ways.jsonl", {"bundle": "another"})
