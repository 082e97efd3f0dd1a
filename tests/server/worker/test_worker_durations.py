"""Seconds on the wire."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.durations import covered, duration, seconds


@given(st.floats(0, 1e6))
def test_seconds_survive_to_the_nanosecond(value: float) -> None:
    sent = duration(value)

    assert 0 <= sent.nanos < 10**9
    assert sent.ToNanoseconds() == round(value * 1e9)
    assert seconds(sent) == pytest.approx(value, abs=1e-9)


def test_a_moment_is_told_since_the_epoch() -> None:
    assert seconds(Timestamp(seconds=5, nanos=250_000_000)) == 5.25


SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda s: tuple(sorted(s))))


@given(SPANS)
def test_what_overlaps_counts_once(spans: list[tuple[int, int]]) -> None:
    whole = {second for begin, end in spans for second in range(begin, end)}

    assert covered(spans) == len(whole)
