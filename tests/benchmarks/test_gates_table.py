"""The table of gates: what it says of runs that are there, fail, or are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.benchmarks.finished import found, runs
from tests.checkout import ROOT

from gates_planning import AFTER, NAME, Arm, Planned, Training, read_planned
from gates_rows import CEILING, LINEAR, NEIGHBOURS, Row
from gates_rules import Beside, Divided, Kept, Own, Shown, Task, Times
from gates_table import numbers, table
from gates_verdicts import SEEDS, Results, judged
from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.measuring.probes import EDITION

CONTROLS = {"none": 0.1, "shuffled": 0.2}
RANDOM = {"random init": 0.3, "PCA-256": 0.4}


def whole(rows: list[Row], results: Results, planned: Planned | None = None) -> str:
    """The table, and below it what is said of each row."""
    return "\n".join([table(rows, results, planned), *numbers(rows, results, planned).values()])


CLIP = Row("clip", "clip-small", (Times("R@1", "chance", 5),))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((), "not run"),
        ((0.9,), "1 of 3 seeds"),
        ((0.9, 0.8, 0.5), "PASS"),
        ((0.9, 0.8, 0.4), "FAIL (2 of 3 pass)"),
    ],
)
def test_a_row_passes_if_every_seed_does(values: tuple[float, ...], verdict: str) -> None:
    assert judged(CLIP, runs("clip", *values)) == verdict


def test_a_row_that_fails_says_what_was_tried() -> None:
    row = Row("clip", "clip-small", CLIP.rules, tried="twice as long: 0.41")

    assert judged(row, runs("clip", 0.1, 0.1, 0.1)) == (
        "FAIL (0 of 3 pass); tried: twice as long: 0.41"
    )
    assert judged(row, runs("clip", 0.9, 0.9, 0.9)) == "PASS"


def test_a_row_without_a_gate_is_reported() -> None:
    assert judged(Row("alone", "r", (Shown("R@1"),)), runs("alone", 0.1, 0.1, 0.1)) == "reported"


def test_a_row_that_compares_waits_for_the_other_with_the_same_seed() -> None:
    row = Row("blocks", "r", (Beside("R@1", "mae", 0.95),))
    own, other = runs("blocks", 0.5, 0.5, 0.5), runs("mae", 0.5, 0.5)

    assert judged(row, own) == "waits for mae, seed 0"
    assert judged(row, {**own, **other}) == "waits for mae, seed 2"
    assert judged(row, {**own, **other, **runs("mae", 0.5, 0.5, 0.53)}) == "PASS"  # their means
    assert judged(row, {**own, **other, **runs("mae", 0.5, 0.5, 0.6)}) == "FAIL (0 of 3 pass)"


def test_a_rule_whose_measure_is_missing_says_so() -> None:
    said = judged(CLIP, runs("clip", 0.9, 0.9, 0.9, name="other"))

    assert said == "not measured: no measure 'R@1'; there are: other"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Measure("words", 0.9, CONTROLS, "above none", True), id="another rule"),
        pytest.param(Measure("words", 0.9, {"none": 0.1}, "above all", True), id="fewer controls"),
    ],
)
def test_seeds_that_were_not_judged_alike_are_to_be_measured_again(other: Measure) -> None:
    row = Row("mlm", "mlm-small", (Own("words", "above all"),))
    today = Measure("words", 0.9, CONTROLS, "above all", True)
    results = {("mlm", seed): found("mlm", seed, today) for seed in SEEDS}

    assert judged(row, results) == "PASS"
    results["mlm", 1] = found("mlm", 1, other)
    assert judged(row, results) == ("to be measured again: words, seed 1, was judged otherwise")
    assert "| words | **0.900 ± 0.000** |" in whole([row], results)


def test_a_single_run_that_another_rule_judged_is_to_be_measured_again() -> None:
    row = Row("mlm", "mlm-small", (Own("words", "above all"),))
    old = Measure("words", 0.9, CONTROLS, "above none", True)

    assert judged(row, {("mlm", 0): found("mlm", 0, old)}).startswith("to be measured again: words")


def test_frozen_features_that_older_probes_were_asked_are_to_be_measured_again() -> None:
    """Beside those of another row that were, too; what no probe told keeps its verdict."""
    rules = (Own("masked", "≤ 0.7"), Own(LINEAR, "above all"), Beside(LINEAR, "mae", 0.9))
    row = Row("mae-block", "mae-small", rules, family="masked")
    measures = (
        Measure("masked", 0.5, CONTROLS, "≤ 0.7", True),
        Measure(LINEAR, 0.6, RANDOM, "above all", True),
        Measure(NEIGHBOURS, 0.6, RANDOM),
    )
    now = {
        (name, seed): found(name, seed, *measures) for name in ("mae", row.name) for seed in SEEDS
    }
    again = f"to be measured again: {LINEAR}, seed 1, was judged otherwise"

    assert judged(row, now) == "PASS"
    for which in (row.name, "mae"):
        older = {**now, (which, 1): replace(now[which, 1], probes=EDITION - 1)}
        assert judged(row, older) == again
        assert "| masked | **0.500 ± 0.000** |" in whole([row], older)
    assert "| mae-block | masked |" in table([row], now)
    assert "| mae-block | masked |" not in table(
        [row], older := {(row.name, 1): replace(now[row.name, 1], probes=1)}
    )
    assert judged(Row("mae-block", "mae-small", rules[:1]), older) == "1 of 3 seeds"


def test_what_is_only_shown_and_was_not_measured_voids_no_verdict() -> None:
    row = Row("clip", "clip-small", (*CLIP.rules, Shown("painted")))

    results = runs("clip", 0.9, 0.8, 0.7)

    assert judged(row, results) == "PASS"
    assert "| painted | not measured |  |  |" in whole([row], results)


def test_what_is_only_shown_beside_rows_that_were_not_run_voids_no_verdict() -> None:
    tasks = (Task("R@1", "whole", rises=True),)
    shown = Divided((Task("R@1", "half", rises=True),))
    row = Row("mix", "r", (Kept(tasks), shown))
    results = {**runs("mix", 0.5, 0.5, 0.5), **runs("whole", 0.4, 0.4, 0.4), **runs("half", 0.2)}

    said = whole([row], results)

    assert judged(row, results) == "PASS"
    assert "alone for 1/1 of it 0.200" in said
    assert judged(row, {**runs("mix", 0.5), **runs("whole", 0.9)}) == "FAIL (1 of 1 run)"
    older = {
        key: replace(run, probes=EDITION - 1) for key, run in results.items() if key[0] != "half"
    }
    assert "alone for 1/1" not in whole([row], {**results, **older})
    assert judged(row, {**results, **older}) == "PASS"


def test_what_is_shown_in_some_seeds_alone_is_the_mean_of_those() -> None:
    row = Row("clip", "clip-small", (Shown("painted"), *CLIP.rules))
    one = {
        ("clip", 0): found("clip", 0, Measure("R@1", 0.9, {"chance": 0.1}), Measure("painted", 2))
    }

    said = whole([row], {**runs("clip", 0.9, 0.9, 0.9), **one})

    assert "| painted | **2.000** |  |  |" in said
    assert "| R@1 **0.900 ± 0.000**: ≥ 5 × chance | PASS |" in said


def test_numbers_are_there_while_a_verdict_waits() -> None:
    row = Row("blocks", "r", (Beside("R@1", "mae", 0.95), Shown("R@1")))

    said = whole([row], runs("blocks", 0.5))

    assert "| R@1 | **0.500** | chance 0.100 |  |" in said
    assert (
        "| [blocks](gates/blocks.md) | ≥ 0.95 × mae's, in the mean of the seeds | "
        "waits for mae, seed 0 |" in said
    )


def test_a_number_stands_once_with_all_that_it_is_held_to_and_says_where_a_gate_fails() -> None:
    row = Row("b", "r", (Times("R@1", "chance", 5), Beside("R@1", "mae", 1.0), Shown("R@1")))
    results = {**runs("b", 0.6, 0.6, 0.6), **runs("mae", 0.5, 0.7, 0.7)}

    said = whole([row], results)

    assert said.count("R@1 **") == said.count("| R@1 |") == 1
    assert (
        "| R@1 | **0.600 ± 0.000** ✗ 3 of 3 | chance 0.100 ± 0.000; mae's 0.633 ± 0.115 | "
        "≥ 5 × chance; ≥ 1 × mae's, in the mean of the seeds |" in said
    )
    both = "≥ 5 × chance; ≥ 1 × mae's, in the mean of the seeds"
    assert f"| R@1 **0.600 ± 0.000** ✗ 3 of 3: {both} | FAIL (0 of 3 pass) |" in said


def test_a_rows_numbers_stand_under_its_recipe_its_changes_and_a_note() -> None:
    row = Row("clip", "clip-small", CLIP.rules, ("a=1",), note="not what was asked")

    section = numbers([row], runs("clip", 0.9))["clip"].removeprefix("# clip\n")

    assert section.startswith(
        "\n`clip-small`, `a=1`; minutes: training 2.0 (processors 1.0). seed 0: "
    )
    assert "\n† not what was asked.\n" in section
    assert "*Tried*" not in section
    assert "| [clip](gates/clip.md) † | " in table([row], runs("clip", 0.9))
    assert "| [clip](gates/clip.md) | " in table([CLIP], runs("clip", 0.9))


def test_what_was_tried_stands_on_the_page_of_a_row_that_passes_too() -> None:
    row = Row("clip", "clip-small", CLIP.rules, tried="twice as long: 0.41")
    results = runs("clip", 0.9, 0.9, 0.9)

    assert judged(row, results) == "PASS"
    assert "\n*Tried*: twice as long: 0.41.\n" in numbers([row], results)["clip"]


def test_on_how_much_a_number_was_measured_stands_beside_it_where_it_was_said() -> None:
    measures = Measure("R@1", 0.9, {"chance": 0.1}, on="56 sentences"), Measure("R@5", 0.9)
    row = Row("clip", "clip-small", (*CLIP.rules, Shown("R@5")))

    page = numbers([row], {("clip", 0): found("clip", 0, *measures)})["clip"]

    assert "| R@1 (56 sentences) | **0.900** |" in page
    assert "| R@5 | **0.900** |" in page


def test_rows_without_a_gate_are_named_below_the_others() -> None:
    rows = [CLIP, Row("alone", "r", (Shown("R@1"),)), Row("third", "r", (Shown("R@1"),))]

    said = table(rows, runs("alone", 0.1, 0.1, 0.1))

    assert "[alone](gates/alone.md) (reported), third (not run)." in said
    assert "| alone" not in said
    assert "| [alone]" not in said


def test_a_row_that_was_not_run_has_its_gate_alone() -> None:
    said = whole([CLIP], {})

    assert "| clip | ≥ 5 × chance | not run |" in said
    assert "## " not in said
    assert numbers([CLIP], {}) == {}


def test_evaluation_is_timed_beside_training_where_it_was() -> None:
    timed = {key: replace(run, evaluated_in=(90.0, 30.0)) for key, run in runs("clip", 0.9).items()}

    assert (
        "minutes: training 2.0 (processors 1.0), evaluation 1.5 (processors 0.5). "
        "seed 0: trained by c, " in whole([CLIP], timed)
    )
    assert "evaluation 1" not in whole([CLIP], runs("clip", 0.9))


# ---------------------------------------------------------------- planning


def test_planning_is_a_line_below_the_world_model_and_says_what_it_was_held_to() -> None:
    row = Row(AFTER, "world-model-small", CLIP.rules)
    planner = Arm("world model", 3, (16.7, 14.3, 19.0), None, "")
    still = Arm("standing still", 0, (15.0, 13.9, 16.2), (1.6, -1.0, 4.3), "FAIL")
    drawn = Arm("random actions", 0, (19.5, 17.0, 22.0), (-2.8, -6.1, -0.4), "PASS")
    goal = Arm("straight to the goal", 40, (0.8, 0.7, 1.0), (15.8, 13.5, 18.2), "")
    arms = (planner, drawn, still, goal)
    run = Training("world-model-small", (), 0, "one")
    planned = Planned("m", "c0ffee", "2026-01-01", "b", {}, 40, 5.0, arms, "FAIL", run)

    said = whole([row], {}, planned)
    above, line = _below(said, AFTER)

    assert above.startswith(f"| {AFTER} |")
    assert line.startswith(
        f"| [{NAME}](gates/{NAME}.md) | centimetres from the goal at the end: **16.7** "
        "[14.3, 19.0] ✗ against standing still: nearer to the goal at the end than random "
        "actions, standing still:"
    )
    assert line.endswith(" | FAIL, of one bundle |")
    assert "| what decides | centimetres from the goal at the end | within 5 cm |" in said
    assert "| world model | **16.7** [14.3, 19.0] | 3 of 40 |" in said
    assert "| standing still | **15.0** [13.9, 16.2] ✗ | 0 of 40 |" in said
    assert "| straight to the goal | **0.8** [0.7, 1.0] | 40 of 40 |" in said


def test_planning_is_stale_once_recipe_or_data_have_changed_and_says_of_which_seed() -> None:
    row = Row(AFTER, "world-model-small", CLIP.rules)
    planner = Arm("world model", 3, (16.7, 14.3, 19.0), None, "")
    old = Planned("m", "c0ffee", "2026-01-01", "b", {}, 40, 5.0, (planner,), "PASS")
    longer = Training("world-model-small", ("schedule.steps=90",), 0, "one")
    planned = replace(old, trained=longer)

    def line(planned: Planned, now: str | None) -> str:
        return _below(table([row], {}, planned, now), AFTER)[1]

    assert line(planned, "one").endswith("| PASS, of one bundle |")
    assert (
        "over one bundle, b (world-model-small with schedule.steps=90, seed 0 alone); measured by "
        in whole([row], {}, planned)
    )
    assert line(planned, None).endswith("| PASS, of one bundle |")  # it is not asked
    assert "**16.7**" in line(planned, "another")
    assert line(planned, "another").endswith(
        "| stale: world-model-small, its data or its trunk have changed since |"
    )
    assert "| stale: " in line(planned, "")  # no such recipe is allowed any longer
    assert line(old, "one").endswith("| none: how its bundle was trained is not known |")
    assert "b (of which nobody knows how it was trained)" in whole([row], {}, old)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"arms": []}', '{"arms": [{"arm": "x"}]}', '{"arms": [1], "x": 2}']
)
def test_what_another_version_left_of_planning_is_not_measured(text: str, tmp_path: Path) -> None:
    (tmp_path / "planning.json").write_text(text)

    assert read_planned(tmp_path / "planning.json") is None


def test_planning_that_was_not_tried_says_so() -> None:
    table_ = table([Row(AFTER, "world-model-small", CLIP.rules)], {})

    assert f"| {NAME} |  | not measured |" in table_.splitlines()
    assert NAME not in table([CLIP], {})


def test_what_planning_left_is_what_its_report_says() -> None:
    planned = read_planned(ROOT / "benchmarks/results/planning.json")
    said = (ROOT / "benchmarks/results/planning.md").read_text(encoding="utf-8")

    assert planned is not None
    for one in planned.arms:
        cells = [one.arm, f"{one.reached} of {planned.episodes}", _interval(one.centimetres)]
        cells += ["" if one.difference is None else _interval(one.difference), one.verdict]
        assert " ".join(f"| {' | '.join(cells)} |".split()) in " ".join(said.split())
    assert f"Verdict: **{planned.verdict}**" in said
    assert Planned.of(planned.as_json()) == planned


def _below(said: str, row: str) -> tuple[str, str]:
    """A row's line of the table, and the next one."""
    lines = said.splitlines()
    (at,) = (n for n, line in enumerate(lines) if line.startswith(f"| {row} |"))
    return lines[at], lines[at + 1]


def _interval(one: tuple[float, float, float]) -> str:
    return f"{one[0]:.1f} [{one[1]:.1f}, {one[2]:.1f}]"


# ---------------------------------------------------------------- the table


def test_the_table_has_a_line_a_row_and_below_it_means_spreads_controls_and_gates() -> None:
    said = whole([CLIP], runs("clip", 0.6, 0.8))
    lines = [one for one in said.splitlines() if one.startswith("| ")]

    assert lines == [
        "| row | found: what it is held to | verdict |",
        "| --- | --- | --- |",
        "| [clip](gates/clip.md) | R@1 **0.700 ± 0.141**: ≥ 5 × chance | 2 of 3 seeds |",
        "| measured | found | beside | gate |",
        "| --- | --- | --- | --- |",
        "| R@1 | **0.700 ± 0.141** | chance 0.100 ± 0.000 | ≥ 5 × chance |",
    ]


def test_evaluations_rule_is_told_in_its_own_words() -> None:
    own = Measure("masked image", 0.6, {"mean patch": 0.9}, gate="≤ 0.7", passed=True)
    results = {("mae", seed): found("mae", seed, own) for seed in SEEDS}
    row = Row("mae", "mae-small", (Own("masked image", "≤ 0.7"),))

    assert "| [mae](gates/mae.md) | masked image **0.600 ± 0.000**: ≤ 0.7 |" in whole(
        [row], results
    )
    assert "| mae | ≤ 0.7 | not run |" in table([row], {})


def test_a_frozen_trunk_stands_beside_what_labels_taught_one_where_that_was_run() -> None:
    row = Row("mae", "mae-small", (Shown(LINEAR), Shown("masked")))
    own = Measure(LINEAR, 0.2, {"random init": 0.1}), Measure("masked", 0.5)
    ceiling = Measure(LINEAR, 0.9, {"random init": 0.1}), Measure("masked", 0.7)
    results = {("mae", seed): found("mae", seed, *own) for seed in SEEDS}
    results[CEILING, 1] = found(CEILING, 1, *ceiling)

    said = whole([row], results)

    beside = "random init 0.100 ± 0.000; supervised's 0.900"
    assert f"| {LINEAR} | **0.200 ± 0.000** | {beside} |  |" in said
    assert "| masked | **0.500 ± 0.000** |  |  |" in said
    assert judged(row, results) == "reported"


def test_the_ceiling_does_not_stand_beside_itself_nor_where_it_was_not_asked_the_same() -> None:
    rows = [Row(CEILING, "supervised-small", (Shown(LINEAR),)), Row("mae", "r", (Shown(LINEAR),))]
    results = {
        (CEILING, 0): found(CEILING, 0, Measure(NEIGHBOURS, 0.9)),
        ("mae", 0): found("mae", 0, Measure(LINEAR, 0.2)),
    }

    assert "supervised's" not in whole(rows, results)
    results[CEILING, 0] = found(CEILING, 0, Measure(LINEAR, 0.9))
    elsewhere = {**results, (CEILING, 0): replace(results[CEILING, 0], judged="other")}
    assert "supervised's" not in whole(rows, elsewhere)
    assert whole(rows, results).count("supervised's") == 1
