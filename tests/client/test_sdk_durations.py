"""Seconds on their way to the wire and back."""

import math
from fractions import Fraction

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from tectum import InvalidInput
from tectum.durations import duration, seconds, signed_duration, timestamp, timestamp_seconds

HALF_A_NANOSECOND = Fraction(1, 2 * 10**9)
TODAY = 1_764_000_000.123456789
A_BREATH_BEFORE_ONE = math.nextafter(1.0, 0.0)
LONGEST = 315_576_000_000.0
LAST_MOMENT = math.nextafter(253_402_300_800.0, 0.0)


def exact(told: Duration | Timestamp) -> Fraction:
    return told.seconds + Fraction(told.nanos, 10**9)


def nearest(told: Duration | Timestamp, value: float) -> bool:
    """No other whole number of nanoseconds is nearer, by a rounding of the fraction's product."""
    return abs(exact(told) - Fraction(value)) <= HALF_A_NANOSECOND * (1 + Fraction(1, 2**20))


@given(st.floats(-LONGEST, LONGEST))
@example(9_793_679_879.1875)
@example(-A_BREATH_BEFORE_ONE)
def test_a_span_either_way_is_told_to_the_nearest_nanosecond(value: float) -> None:
    told = signed_duration(value)

    assert nearest(told, value)
    assert told.seconds * told.nanos >= 0, "both parts have the span's sign"
    assert abs(told.nanos) < 10**9


@given(st.floats(0, LONGEST, exclude_min=True))
@example(A_BREATH_BEFORE_ONE)
def test_a_positive_span_is_told_to_the_nearest_nanosecond(value: float) -> None:
    assert nearest(duration(value, "deadline"), value)


@given(st.floats(0, LAST_MOMENT))
@example(TODAY)
def test_a_moment_is_told_to_the_nearest_nanosecond(value: float) -> None:
    told = timestamp(value, "capture_time")

    assert nearest(told, value)
    assert told.ToJsonString(), "protobuf takes it for a moment"


@given(st.floats(0, LAST_MOMENT))
@example(9_793_679_879.1875)
def test_what_comes_back_is_what_went_to_a_nanosecond_or_the_last_bit(value: float) -> None:
    allowed = max(1e-9, math.ulp(value))

    assert seconds(signed_duration(value)) == pytest.approx(value, rel=0, abs=allowed)
    assert timestamp_seconds(timestamp(value, "capture_time")) == pytest.approx(
        value, rel=0, abs=allowed
    )


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, LONGEST * 2])
def test_a_span_that_the_wire_cannot_say_is_refused_by_name(value: float) -> None:
    with pytest.raises(InvalidInput, match="deadline") as refused:
        duration(value, "deadline")

    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, 253_402_300_800.0])
def test_a_moment_that_the_wire_cannot_say_is_refused_by_name(value: float) -> None:
    with pytest.raises(InvalidInput, match="capture_time"):
        timestamp(value, "capture_time")
