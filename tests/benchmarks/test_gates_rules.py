"""Rules of the gates: what passes and what does not, by numbers alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates_rules import (
    Above,
    Beside,
    Beyond,
    Divided,
    Kept,
    Own,
    Rising,
    Shown,
    Task,
    Times,
    Unmeasured,
    find,
)
from tectum_train.evaluation.measuring.measure import Measure

shares = st.floats(0.01, 1)


def test_a_measure_is_found_by_a_part_of_its_name() -> None:
    measures = [Measure("frame → task, R@1", 0.5), Measure("masked word, nats", 2.0)]

    assert find(measures, "nats") is measures[1]
    with pytest.raises(Unmeasured, match=r"no measure 'pixels'; there are: frame → task, R@1"):
        find(measures, "pixels")
    with pytest.raises(Unmeasured, match="several"):
        find(measures, "a")


def test_a_number_in_a_name_is_a_whole_one() -> None:
    measures = [Measure("sentence, R@10", 0.9), Measure("sentence, R@1", 0.5)]

    with pytest.raises(Unmeasured, match="no measure 'sentence, R@1'"):
        find(measures[:1], "sentence, R@1")
    assert Shown("sentence, R@1").judge(measures[:1], {}) == []

    assert find(measures, "sentence, R@1") is measures[1]
    with pytest.raises(Unmeasured, match="several"):
        find(measures, "sentence")


def test_words_that_a_number_follows_are_found() -> None:
    measure = Measure("action prediction, 16 steps", 0.4)

    assert find([measure], "action prediction, ") is measure


def test_what_is_only_shown_may_be_missing() -> None:
    assert Shown("next frame painted").judge([Measure("x", 1.0)], {}) == []
    with pytest.raises(Unmeasured, match="no measure 'next frame painted'"):
        Own("next frame painted", "≤ 2").judge([Measure("x", 1.0)], {})


def test_evaluations_own_verdict_counts_unless_it_is_only_shown() -> None:
    measures = [
        Measure("x 1", 1.0, gate="≤ 2", passed=True), Measure("x 2", 3.0, gate="< 3", passed=False),
    ]  # fmt: skip
    rule = Own("x", "≤ 2", ("< 3",))

    assert [line.passed for line in rule.judge(measures, {})] == [True, False]
    assert [line.passed for line in Shown("x").judge(measures, {})] == [None, None]
    assert rule.words == "≤ 2; then < 3"


@pytest.mark.parametrize("gate", ["≤ 3", ""])
def test_a_verdict_by_another_rule_is_none(gate: str) -> None:
    measure = Measure("x", 1.0, {"chance": 2.0}, gate, passed=True)

    (line,) = Own("x", "≤ 2").judge([measure], {})

    assert (line.passed, line.outdated) == (None, True)
    assert (line.value, line.controls) == (1.0, {"chance": 2.0})


@given(value=shares, chance=shares)
def test_five_times_chance_is_five_times_or_more(value: float, chance: float) -> None:
    (line,) = Times("R@1", "chance", 5).judge([Measure("R@1", value, {"chance": chance})], {})

    assert line.passed is (value >= 5 * chance)
    assert line.controls == {"chance": chance}


@pytest.mark.parametrize(
    ("value", "by", "passed"),
    [(0.51, 0.0, True), (0.504, 0.0, False), (0.6, 0.1, True), (0.59, 0.1, False)],
)
def test_above_is_by_a_percent_or_by_what_is_said_and_of_the_best_control(
    value: float, by: float, passed: bool
) -> None:
    rule = Above("accuracy", ("chance", "twin"), by)

    (line,) = rule.judge([Measure("accuracy", value, {"chance": 0.25, "twin": 0.5})], {})

    assert line.passed is passed


@pytest.mark.parametrize("rule", [Above("R@1", ("twin",)), Times("R@1", "twin", 5)])
def test_a_control_that_is_missing_is_named(rule: Above | Times) -> None:
    with pytest.raises(Unmeasured, match="no control 'twin' of 'R@1'; there are: chance"):
        rule.judge([Measure("R@1", 0.5, {"chance": 0.1})], {})


def test_above_holds_at_every_horizon_by_itself() -> None:
    measures = [Measure(f"frame {n} ahead", v, {"chance": 0.2}) for n, v in ((1, 0.5), (2, 0.1))]

    assert [line.passed for line in Above("ahead", ("chance",)).judge(measures, {})] == [
        True,
        False,
    ]


@given(st.lists(st.floats(0, 9), min_size=1, max_size=5))
def test_what_rises_rises_at_every_step(values: list[float]) -> None:
    names = tuple(f"{place} nats" for place in range(len(values)))
    measures = [Measure(name, value) for name, value in zip(names, values, strict=True)]

    lines = Rising(names, "rises").judge(measures, {})

    assert all(line.passed for line in lines) is (values == sorted(set(values)))


def test_one_row_is_held_against_another_of_the_same_seed() -> None:
    rule = Beside("probe", "mae", 0.95)

    (line,) = rule.judge(
        [Measure("probe", 0.76, {"random": 0.1})], {"mae": [Measure("probe", 0.8)]}
    )

    assert line.passed is None  # by one seed alone nothing is said
    assert line.controls == {"mae's": 0.8, "random": 0.1}
    assert rule.rows == ("mae",)


def test_another_row_is_held_against_by_the_means_of_the_seeds() -> None:
    rule = Beside("probe", "mae", 0.95)
    pairs = [(0.70, 0.80), (0.84, 0.80)]

    lines = [
        line
        for own, other in pairs
        for line in rule.judge([Measure("probe", own)], {"mae": [Measure("probe", other)]})
    ]

    assert rule.holds(lines)  # 0.77 of 0.80, though the first has less than 0.76
    assert not rule.holds(lines[:1])


def test_beyond_is_better_by_what_chance_may_make_of_it() -> None:
    found = Measure("hits", 0.75, {"pixels": 0.5, "noise": 0.1}, errors={"pixels": 0.25})
    falling = replace(found, value=0.25, errors={"pixels": 0.26})

    assert Beyond("hits", ("pixels",)).judge([found], {})[0].passed is True
    assert Beyond("hits", ("pixels",), falls=True).judge([found], {})[0].passed is False
    assert Beyond("hits", ("pixels",), falls=True).judge([falling], {})[0].passed is False
    assert Beyond("hits", ("pixels",)).words == "above pixels by ≥ two standard errors"
    (unknown,) = Beyond("hits", ("pixels", "noise")).judge([found], {})
    assert (unknown.passed, unknown.outdated) == (None, True)


def test_learning_together_is_the_mean_of_relative_gains_whichever_way_better_is() -> None:
    rule = Kept((Task("R@1", "words", rises=True), Task("error", "pixels")))
    alone = {"words": [Measure("R@1", 0.5)], "pixels": [Measure("error", 1.0)]}

    total, *tasks = rule.judge([Measure("R@1", 0.6), Measure("error", 1.09)], alone)

    assert total.value == pytest.approx((0.2 - 0.09) / 2)
    assert total.passed is True
    assert [task.controls["alone"] for task in tasks] == [0.5, 1.0]
    assert [task.controls["relative gain"] for task in tasks] == pytest.approx([0.2, -0.09])
    assert all(task.passed for task in tasks)
    assert rule.rows == ("words", "pixels")


def test_no_task_may_be_given_up_for_the_others() -> None:
    rule = Kept((Task("R@1", "words", rises=True), Task("error", "pixels")))
    alone = {"words": [Measure("R@1", 0.5)], "pixels": [Measure("error", 1.0)]}

    total, *tasks = rule.judge([Measure("R@1", 0.05), Measure("error", 0.01)], alone)

    assert total.passed is True
    assert [task.passed for task in tasks] == [False, True]


@given(st.lists(st.tuples(shares, st.booleans()), min_size=1, max_size=4))
def test_what_is_as_good_as_alone_gains_nothing(found: list[tuple[float, bool]]) -> None:
    tasks = tuple(Task(f"[{n}]", f"row {n}", rises) for n, (_, rises) in enumerate(found))
    measures = [Measure(f"[{n}]", value) for n, (value, _) in enumerate(found)]
    alone = {f"row {n}": [measure] for n, measure in enumerate(measures)}

    total, *_ = Kept(tasks).judge(measures, alone)

    assert total.value == 0
    assert total.passed is True


def test_what_alone_learns_nothing_does_not_outweigh_the_others() -> None:
    rule = Kept((Task("R²", "alone", rises=True),))

    total, _ = rule.judge([Measure("R²", 0.04)], {"alone": [Measure("R²", 0.0)]})

    assert total.value == pytest.approx(0.8)


def test_beside_runs_that_share_what_the_mix_costs_nothing_is_judged() -> None:
    rule = Divided((Task("R@1", "words", rises=True), Task("error", "pixels")))
    shares = {"words": [Measure("R@1", 0.5)], "pixels": [Measure("error", 1.0)]}

    total, *tasks = rule.judge([Measure("R@1", 0.6), Measure("error", 0.9)], shares)

    assert total.what == "Δm beside 2 models of one task each that share the operations"
    assert total.value == pytest.approx((0.2 + 0.1) / 2)
    assert [task.controls for task in tasks] == [
        {"alone for 1/2 of it": 0.5},
        {"alone for 1/2 of it": 1.0},
    ]
    assert {line.passed for line in (total, *tasks)} == {None}
