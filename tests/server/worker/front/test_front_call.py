"""Where a call's time went: parts that do not overlap, however many jobs it has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum.v1 import call_pb2, model_pb2
from tectum_server.worker.durations import seconds
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.catalogue import ServedModel
from tectum_server.worker.front.memory import Memory
from tectum_server.worker.jobs import JobResult, ModelEntry, Priority

TIMES = st.integers(0, 100)


def a_call() -> Call:
    """One that came at 10 s."""
    served = SimpleNamespace(
        entry=ModelEntry("full", "1", "ready", True, b""), description=model_pb2.Model()
    )
    share = Memory(1).share()
    return Call("r", cast("ServedModel", served), Priority.BULK, 99.0, 10.0, share)


def a_result(queue: float, compute: float) -> JobResult:
    return JobResult("1", (), queue, compute, 1)


def parts(timings: call_pb2.Timings) -> tuple[float, float]:
    return seconds(timings.queue), seconds(timings.compute)


def test_jobs_one_after_the_other_have_both_waited() -> None:
    call = a_call()

    call.account(a_result(1.0, 2.0), sent=11.0)
    call.account(a_result(0.5, 4.0), sent=15.0)

    assert parts(call.info().timings) == pytest.approx((1.5, 6.0))


def test_a_job_that_waited_for_another_of_the_call_has_not_waited_for_others() -> None:
    call = a_call()

    call.account(a_result(1.0, 2.0), sent=11.0)
    call.account(a_result(3.0, 4.0), sent=11.0)  # behind the first one

    assert parts(call.info().timings) == pytest.approx((1.0, 6.0))


@given(st.lists(st.tuples(TIMES, TIMES, TIMES), min_size=1))
def test_waiting_and_computing_never_take_longer_than_the_engines_had(
    jobs: list[tuple[int, int, int]],
) -> None:
    call = a_call()

    for sent, waited, took in jobs:
        call.account(a_result(waited, took), float(sent))

    queue, compute = parts(call.info().timings)
    ends = max(map(sum, jobs))
    assert queue >= 0
    assert compute >= 0
    assert queue + compute <= ends - min(sent for sent, _, _ in jobs) + 1e-6


def test_a_frame_of_a_stream_has_times_of_its_own() -> None:
    call = a_call()
    call.account(a_result(1.0, 2.0), sent=11.0)

    frame = call.for_frame(20.0, Memory(1).share())

    frame.account(a_result(0.25, 0.5), sent=15.0)
    assert parts(frame.info().timings) == pytest.approx((0.25, 0.5))
