"""What came of a load: percentiles as NumPy has them, and parts that add up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum import Priority
from tectum_cli.load import chart
from tectum_cli.load.driving import Answer, Outcome, Result
from tectum_cli.load.report import PERCENTILES, as_json, lines, percentile, summary
from tectum_cli.load.traffic import Question

TIMES = st.floats(0, 10)
ONE = {"embed_images": 1}


def result(
    took: float = 0.1,
    outcome: Outcome = Outcome.ANSWERED,
    *,
    priority: Priority = Priority.INTERACTIVE,
    deadline: float | None = None,
    late: float = 0.0,
    at: float = 0.0,
    op: str = "embed_images",
    **told: float,
) -> Result:
    reason = "" if outcome is Outcome.ANSWERED else outcome.value.upper()
    answer = Answer(outcome, reason, **told)  # type: ignore[arg-type]
    return Result(Question(op, priority, deadline), at, late, took, answer)


@given(st.lists(TIMES, min_size=1), st.sampled_from(PERCENTILES))
def test_percentiles_are_those_of_numpy_by_nearest_rank(
    values: list[float], percent: float
) -> None:
    assert percentile(values, percent) == np.percentile(values, percent, method="inverted_cdf")


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def test_goodput_counts_items_that_were_answered_in_time() -> None:
    told = [
        *[result(0.1, deadline=0.2)] * 6,
        *[result(0.3, deadline=0.2)] * 2,
        *[result(0.0, Outcome.REFUSED, deadline=0.2)] * 2,
    ]

    found = summary(told, 2.0, {"embed_images": 4})

    assert (found.goodput, found.throughput, found.in_time) == (12.0, 16.0, 0.6)
    assert found.outcomes == {"answered": 8, "refused": 2}
    assert found.reasons == {"REFUSED": 2}


def test_answers_that_come_after_the_measured_time_are_no_part_of_the_rate() -> None:
    # 100 calls a second come, and 25 are answered.
    told = [result((4 * n - n) / 100, at=n / 100) for n in range(1, 401)]

    found = summary(told, 4.0, ONE)

    assert (found.throughput, found.goodput) == (25.0, 25.0)
    assert found.calls == found.outcomes["answered"] == 400
    assert found.latency_ms["max"] == pytest.approx(12_000)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), min_size=1),
    st.integers(0, 4),
    st.integers(5, 10),
)
def test_no_more_is_told_than_was_answered_while_it_was_measured(
    calls: list[tuple[int, int]], begins: int, ends: int
) -> None:
    told = [result(took, at=at) for at, took in calls]

    found = summary(told, ends, ONE, begins)

    within = sum(begins <= at + took <= ends for at, took in calls)
    assert found.throughput * (ends - begins) == pytest.approx(within)
    assert found.calls == sum(at >= begins for at, _ in calls)


def test_what_a_call_holds_depends_on_what_it_asks() -> None:
    told = [result(0.1), result(0.1, op="reconstruct_image"), result(0.1, op="similarity")]

    found = summary(told, 2.0, {"embed_images": 32, "reconstruct_image": 1, "similarity": 64})

    assert found.throughput == (32 + 1 + 64) / 2


def test_latency_is_of_what_was_answered_and_refusals_have_their_own() -> None:
    found = summary([result(0.1), result(5.0, Outcome.REFUSED)], 1.0, ONE)

    assert found.latency_ms["max"] == pytest.approx(100)
    assert found.refusal_ms["p99"] == pytest.approx(5000)


@given(st.lists(st.tuples(TIMES, TIMES, TIMES, TIMES, TIMES, TIMES), min_size=1, max_size=20))
def test_where_the_time_went_adds_up_to_the_mean_latency(
    times: list[tuple[float, ...]],
) -> None:
    told = [
        result(
            late + queue + decode + compute + rest + way,
            late=late, queue=queue, decode=decode, compute=compute,
            total=queue + decode + compute + rest,
        )
        for late, queue, decode, compute, rest, way in times
    ]  # fmt: skip

    found = summary(told, 1.0, ONE).where_ms

    mean = 1000 * sum(one.took for one in told) / len(told)
    assert sum(found.values()) == pytest.approx(mean, abs=1e-6)
    assert found["server"] == pytest.approx(1000 * np.mean([one[4] for one in times]), abs=1e-6)


def test_a_server_that_tells_no_times_has_no_parts() -> None:
    assert summary([result()], 1.0, ONE).where_ms == {}


def test_no_call_in_all_is_told_without_a_fault() -> None:
    found = summary([], 1.0, ONE)

    assert (found.calls, found.latency_ms) == (0, {})
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["in_time"] is None
    assert list(lines(found, {})) == ["0.0 items/s answered, 0.0 in time, of 0 calls: none"]


def test_several_classes_have_a_line_each_and_one_has_none() -> None:
    control = [result(0.01, priority=Priority.CONTROL, deadline=0.05)]
    bulk = [result(0.5, Outcome.EXPIRED, priority=Priority.BULK)]
    whole = summary(control + bulk, 1.0, ONE)

    said = list(
        lines(whole, {"control": summary(control, 1.0, ONE), "bulk": summary(bulk, 1.0, ONE)})
    )

    assert [line.split()[0] for line in said[-2:]] == ["control", "bulk"]
    assert said[-2].split() == ["control", "1", "1.0000", "10.0", "10.0", "0", "0"]
    assert said[-1].split() == ["bulk", "1", "0.0000", "nan", "nan", "0", "1"]
    assert len(list(lines(whole, {"control": whole}))) == len(said) - 4


def test_a_chart_is_drawn_of_any_load(tmp_path: Path) -> None:
    told = [result(0.1), result(0.0, Outcome.REFUSED)]

    chart.draw(told, {"interactive": told, "bulk": []}, tmp_path / "a.png")
    chart.draw([], {}, tmp_path / "b.png")

    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png"))
