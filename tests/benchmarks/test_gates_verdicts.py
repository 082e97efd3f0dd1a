"""Verdicts on a row whose numbers are held to several gates, or were measured elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.benchmarks.finished import runs

from gates_notes import NOTES, TRIED
from gates_rows import ROWS, Row
from gates_rules import Above, Beside, Rule, Times
from gates_verdicts import judged
from tectum_train.evaluation.measuring.probes import EDITION

FIVE_TIMES, FAR_ABOVE = Times("R@1", "chance", 5), Above("R@1", ("chance",), by=0.6)


@pytest.mark.parametrize(
    "rules", [(FIVE_TIMES, FAR_ABOVE), (FAR_ABOVE, FIVE_TIMES)], ids=["passed first", "passed last"]
)
def test_a_number_that_passes_one_of_its_gates_and_not_the_other_fails(
    rules: tuple[Rule, ...],
) -> None:
    row, one_of_them = Row("clip", "clip-small", rules), Row("clip", "clip-small", (FIVE_TIMES,))

    assert judged(one_of_them, runs("clip", 0.6, 0.6, 0.6)) == "PASS"
    assert judged(row, runs("clip", 0.6, 0.6, 0.6)) == "FAIL (0 of 3 pass)"
    assert judged(row, runs("clip", 0.8, 0.8, 0.6)) == "FAIL (2 of 3 pass)"
    assert judged(row, runs("clip", 0.8, 0.8, 0.8)) == "PASS"


@pytest.mark.parametrize("times", [5, 7])
def test_what_holds_in_the_mean_of_the_seeds_saves_no_seed_that_fails_its_own_gate(
    times: int,
) -> None:
    row = Row("blocks", "r", (Times("R@1", "chance", times), Beside("R@1", "mae", 0.5)))
    results = {**runs("blocks", 0.6, 0.6, 0.6), **runs("mae", 0.5, 0.5, 0.5)}

    assert judged(row, results) == {5: "PASS", 7: "FAIL (0 of 3 pass)"}[times]


def test_a_seed_that_was_measured_on_other_episodes_is_to_be_measured_on_the_judged_ones() -> None:
    row, results = Row("clip", "clip-small", (FIVE_TIMES,)), runs("clip", 0.9, 0.9, 0.9)

    assert judged(row, results) == "PASS"
    assert (
        judged(row, {**results, ("clip", 1): replace(results["clip", 1], judged="")})
        == "to be measured on the judged episodes: seed 1"
    )


def test_a_share_of_what_another_row_has_is_no_verdict_before_all_seeds_are_there() -> None:
    row = Row("tubes", "r", (FIVE_TIMES, Beside("R@1", "random", 0.95)))
    own, other = runs("tubes", 0.6, 0.6, 0.6), runs("random", 0.9, 0.9, 0.9)

    assert judged(row, {**own, **other}) == "FAIL (0 of 3 pass)"
    assert judged(row, {("tubes", 0): own["tubes", 0], **other}) == "1 of 3 seeds"


def test_a_row_waits_for_another_on_the_same_episodes() -> None:
    row = Row("blocks", "r", (Beside("R@1", "mae", 0.95),))
    results = {**runs("blocks", 0.5, 0.5, 0.5), **runs("mae", 0.5, 0.5, 0.5)}

    assert judged(row, results) == "PASS"
    results["mae", 1] = replace(results["mae", 1], judged="others")
    assert judged(row, results) == "waits for mae, seed 1"


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("latent action (16) over 0.0625 s → hand in plane, R²", "to be measured again"),
        ("latent action, next frame's error ÷ copying", "PASS"),
    ],
)
def test_what_older_probes_told_is_to_be_measured_again(name: str, verdict: str) -> None:
    row = Row("latent", "r", (Times(name, "chance", 5),))
    results = runs("latent", 0.9, 0.9, 0.9, name=name)

    older = {key: replace(run, probes=EDITION - 1) for key, run in results.items()}

    assert judged(row, results) == "PASS"
    assert judged(row, older).startswith(verdict)


def test_notes_and_what_was_tried_are_of_rows_that_there_are() -> None:
    names = {row.name for row in ROWS}

    assert NOTES
    assert NOTES.keys() | TRIED.keys() <= names
    assert all(row.note == NOTES.get(row.name, "") for row in ROWS)
