"""What came of streams: rates of what was heard in time, shares of what was filmed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum import Priority
from tectum_cli.load.chart import draw_frames
from tectum_cli.load.fleet import fleet_lines, fleet_summary
from tectum_cli.load.report import as_json
from tectum_cli.load.robots import Filmed, Robot, Shown

CONTROL, BULK = Priority.CONTROL, Priority.BULK


def robot(*frames: Filmed, priority: Priority = CONTROL, ended: str = "") -> Robot:
    return Robot([], 30.0, 0.0, {"priority": priority}, list(frames), ended)


def frame(at: float, took: float | None = 0.1, shown: Shown = Shown.OK, reason: str = "") -> Filmed:
    heard = None if took is None else at + took
    return Filmed(at, heard, shown, reason, paired=True, compute=0.02, batch=4)


def test_each_robots_answers_are_counted_where_they_were_heard() -> None:
    busy = robot(frame(0.5, 0.75), frame(1.0), frame(2.0), frame(2.75, 0.5))
    idle = robot(frame(1.5), frame(2.5, None, Shown.UNSENT))

    found = fleet_summary([busy, idle], ends=3.0, begins=1.0)

    assert found.rates == [
        0.5,
        1.5,
    ]  # what was filmed in the warm-up counts, what came late does not
    assert found.answered == 2.0
    assert found.captured == 2.5
    assert found.age_ms["max"] == pytest.approx(750)
    assert found.shares == {"ok": 0.8, "superseded": 0, "stale": 0, "failed": 0, "unsent": 0.2}
    assert (found.paired, found.mean_batch) == (1.0, 4.0)
    assert found.compute_ms == pytest.approx(20)


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from(Shown)), min_size=1))
def test_shares_of_what_was_filmed_sum_to_one(frames: list[tuple[float, Shown]]) -> None:
    filmed = [frame(at, None if shown is Shown.UNSENT else 0.1, shown) for at, shown in frames]

    found = fleet_summary([robot(*filmed)], ends=11.0)

    assert sum(found.shares.values()) == pytest.approx(1)
    assert set(found.shares) == {word.value for word in Shown}


def test_why_frames_failed_and_streams_ended_is_told() -> None:
    fleet = [robot(frame(0.0, 0.1, Shown.FAILED, "WHY")), robot(ended="QUEUE_FULL")]

    said = list(fleet_lines(fleet_summary(fleet, 1.0), {}, paired=False))

    assert said == [
        "0.0 frames/s answered of 1.0 from 2 robots",
        "of each robot, frames/s answered: fewest 0.00, mean 0.00, most 0.00",
        "of all frames: ok 0.0%, superseded 0.0%, stale 0.0%, failed 100.0%, unsent 0.0%",
        "failed: 1 WHY",
        "streams that ended: 1 QUEUE_FULL",
    ]


def test_several_classes_have_a_line_each() -> None:
    fleet = {"control": [robot(frame(0.0))], "bulk": [robot(frame(0.0, 0.2), priority=BULK)]}
    told = {word: fleet_summary(own, 1.0) for word, own in fleet.items()}
    whole = fleet_summary([one for own in fleet.values() for one in own], 1.0)

    said = list(fleet_lines(whole, told, paired=True))

    assert said[4].endswith("with a latent action: 100.0%")
    assert said[-2].split() == ["control", "1", "1.00", "1.00", "100.0", "100.0", "1.000"]
    assert said[-1].split() == ["bulk", "1", "1.00", "1.00", "200.0", "200.0", "1.000"]


def test_nothing_in_all_is_told_without_a_fault() -> None:
    found = fleet_summary([robot()], 1.0)

    assert math.isnan(found.mean_batch)
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["mean_batch"] is None
    assert list(fleet_lines(found, {}, paired=True))[-1] == "of all frames: none"


def test_a_chart_is_drawn_of_any_fleet(tmp_path: Path) -> None:
    draw_frames({"control": [robot(frame(0.5)), robot()]}, tmp_path / "a.png", 1.0)
    draw_frames({}, tmp_path / "b.png", 1.0)

    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png"))
