"""Measures as tables, over one seed or several."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tectum_train.evaluation.measuring.measure import Measure
from tectum_train.evaluation.report import flat, markdown


def of(value: float, passed: bool | None = None, **controls: float) -> Measure:
    return Measure(
        "accuracy", value, controls, "" if passed is None else "≥ 0.5", passed, "9 frames"
    )


def row(*runs: Measure) -> list[str]:
    """The cells of the table's first row."""
    lines = markdown({str(n): [measure] for n, measure in enumerate(runs)}).splitlines()
    return [cell.strip() for cell in lines[2].strip("|").split("|")]


def test_one_seed_is_told_as_it_is() -> None:
    assert row(of(0.61234, True, chance=0.25, pixels=0.3)) == [
        "accuracy", "0.612", "chance 0.250; pixels 0.300", "≥ 0.5", "PASS", "9 frames",
    ]  # fmt: skip


def test_three_seeds_are_told_by_mean_and_spread() -> None:
    runs = [of(value, True, chance=chance) for value, chance in ((1, 0.1), (2, 0.2), (3, 0.3))]

    assert row(*runs)[1:] == [
        "2.000 ± 1.000", "chance 0.200 ± 0.100", "≥ 0.5", "PASS", "9 frames",
    ]  # fmt: skip


def test_errors_are_told_beside_the_controls_whose_differences_they_are_of() -> None:
    runs = [replace(of(v, True, chance=0.1, pixels=v), errors={"pixels": v}) for v in (0.2, 0.3)]

    assert row(*runs)[2] == "chance 0.100 ± 0.000; pixels 0.250 ± 0.071 (2 SE 0.250)"
    # Of one seed they are not known: nothing is told of both.
    assert row(runs[0], replace(runs[1], errors={}))[2].endswith("pixels 0.250 ± 0.071")


def test_one_failing_seed_fails_the_row_and_is_counted() -> None:
    assert row(of(0.6, True), of(0.4, False), of(0.7, True))[-2] == "FAIL (2 of 3 pass)"
    assert row(of(0.4, False))[-2] == "FAIL (0 of 1 pass)"


def test_what_is_only_reported_has_no_verdict() -> None:
    assert row(of(0.4)) == ["accuracy", "0.400", "", "", "", "9 frames"]


def test_the_table_is_markdown() -> None:
    head, rule, *_ = lines = markdown({"one": [of(1.0), of(2.0)]}).splitlines()

    assert head == "| measure | value | controls | gate | | on |"
    assert rule == "| --- | --- | --- | --- | --- | --- |"
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {7}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ([of(1.0)], "row 2 of two is missing, where one has 'accuracy'"),
        ([of(1.0), of(2.0), of(3.0)], "row 3 of two is 'accuracy' .*, where one has missing"),
        ([of(1.0), replace(of(2.0), name="recall")], "row 2 of two is 'recall' .* 'accuracy'"),
        ([of(1.0), of(2.0, True)], r"row 2 of two is 'accuracy' \(gate: ≥ 0.5; .*\(gate: none"),
        ([of(1.0), of(2.0, pixels=0.1)], "row 2 of two .*controls: pixels.*controls: none"),
    ],
)
def test_seeds_with_unequal_measures_are_not_mixed(other: list[Measure], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        markdown({"one": [of(1.0), of(2.0)], "two": other})


def test_a_summary_is_names_and_rounded_values() -> None:
    assert flat([of(0.123456)]) == {"accuracy": 0.1235}
