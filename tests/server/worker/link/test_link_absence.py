"""How long an engine is away yet, by what its last start took; and what its callers are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.server.worker.linked import IMAGE, MEMORY, HeldEngine, failure, job

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Job, JobResult, Renewal
from tectum_server.worker.link.absence import FIRST_GUESS, Absence
from tectum_server.worker.link.remote import RemoteEngine
from tectum_server.worker.link.served import serve_engine

SECONDS = st.floats(0, 1e5)


def test_what_is_left_is_the_last_starts_less_what_has_passed() -> None:
    absence = Absence()
    absence.begin(100.0)
    first = absence.left(102.0)
    absence.end(20.0)
    absence.begin(200.0)

    assert first == FIRST_GUESS + 0.5 - 2
    assert [absence.left(200.0 + passed) for passed in (0, 5, 20)] == [20.5, 15.5, 0.5]


def test_one_that_takes_longer_is_asked_ever_later() -> None:
    absence = Absence()
    absence.end(8.0)
    absence.begin(0.0)

    assert [absence.left(now) for now in (10.0, 20.0, 60.0, 500.0)] == [5.0, 10.0, 30.0, 50.0]


def test_an_absence_begins_once_and_a_start_of_unknown_length_changes_nothing() -> None:
    absence = Absence()
    absence.end(9.0)
    absence.begin(0.0)
    absence.begin(4.0)
    at_four = absence.left(4.0)
    absence.end(None)

    assert at_four == 5.5
    assert absence.left(100.0) == 9.5  # as if it went now


@given(SECONDS, SECONDS, SECONDS)
def test_nobody_is_told_to_come_at_once_or_in_ages(start: float, begun: float, now: float) -> None:
    absence = Absence()
    absence.end(start)
    absence.begin(begun)

    assert 0.5 <= absence.left(begun + now) <= 50


@example(2.8354571425049113, 2.2e-16)
@given(st.floats(1, 49), st.floats(0, 49))
def test_two_tries_outlast_a_start_that_takes_half_as_long_again(
    start: float, asked: float
) -> None:
    absence = Absence()
    absence.end(start)
    absence.begin(0.0)

    now = asked
    for _ in range(2):
        now += absence.left(now)

    assert now >= 1.5 * start


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Failing(HeldEngine):
    """An engine that has failed, and knows no more."""

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        raise Failure(errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE, "it has failed")


async def test_callers_are_told_what_is_left_of_a_start(tmp_path: Path) -> None:
    clock, changed = Clock(), asyncio.Event()
    engine = Failing()
    serving = asyncio.create_task(serve_engine(engine, tmp_path / "socket", lambda: 20.0))
    remote = RemoteEngine(tmp_path / "socket", MEMORY, MEMORY, clock)
    remote.on_change(changed.set)
    remote.start()
    await changed.wait()

    delays = [(await refused(remote)).retry_delay]
    changed.clear()
    serving.cancel()
    await changed.wait()
    for clock.now in (105.0, 112.0):
        delays.append((await refused(remote)).retry_delay)
    await remote.close()

    assert delays == [20.5, 15.5, 8.5]


async def refused(remote: RemoteEngine) -> Failure:
    """What a caller is told."""
    found = await failure(asyncio.create_task(remote.submit(job(IMAGE))))
    assert found.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert found.retry_delay == pytest.approx(remote.back_in)
    return found
