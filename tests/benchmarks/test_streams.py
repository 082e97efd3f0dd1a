"""Live cameras over capacity: how much newer a frame the worker had, as it told."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tectum
from streams import Robot
from tectum import FrameStatus, Numerics, ResponseInfo, Timings


def told(number: int, status: FrameStatus, age: float, compute: float = 0.0) -> tectum.FrameResult:
    """What became of a frame, and how old it was then."""
    timings = Timings(0.0, None, compute, 0.0, 1)
    info = ResponseInfo("m", "1", Numerics("float32", ""), timings, "")
    ok = status is FrameStatus.OK
    return tectum.FrameResult(number, status, None, info if ok else None, None, None, None, 0, age)


def robot(*results: tectum.FrameResult) -> Robot:
    """Ten frames a second, a second long."""
    captured = [number / 10 for number in range(10)]
    return Robot(captured, [(0.0, result) for result in results])


def test_an_answer_missed_what_the_worker_had_a_moment_before_its_batch_began() -> None:
    answer = told(2, FrameStatus.OK, age=1.0, compute=0.3)  # began at 0.9 s
    one = robot(told(5, FrameStatus.SUPERSEDED, age=0.2), answer)  # by the sixth, at 0.7 s

    assert one.missed(one.had(), answer) == pytest.approx(0.4)


def test_what_the_worker_had_by_then_only_just_is_not_missed() -> None:
    answer = told(2, FrameStatus.OK, age=1.0, compute=0.3)
    one = robot(told(5, FrameStatus.SUPERSEDED, age=0.35), answer)  # at 0.85 s

    assert one.missed(one.had(), answer) == 0.0


@given(st.dictionaries(st.integers(0, 9), st.floats(0, 5), max_size=10))
def test_no_frame_is_had_after_a_newer_one(ages: dict[int, float]) -> None:
    one = robot(*(told(number, FrameStatus.SUPERSEDED, age) for number, age in ages.items()))

    had = one.had()

    assert len(had) == 11
    assert all(before <= after for before, after in itertools.pairwise(had))
