"""A batch that does not come back ends the engine, however long one may take."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.worker.engine.gated import Rig, refusal, settle

from tectum.v1 import errors_pb2
from tectum_server.worker.engine.scheduling.stuck import Stuck, patience, within

MS = st.none() | st.floats(0, 1e6)


@given(MS, st.floats(0.1, 1e3))
def test_a_batch_may_take_ten_times_what_it_should_and_never_less_than_the_least(
    expected: float | None, least: float
) -> None:
    found = patience(expected, least)

    assert found >= least
    assert found == pytest.approx(max(least, (expected or 0.0) / 100))


async def test_a_batch_that_comes_is_its_result_or_its_error() -> None:
    loop = asyncio.get_running_loop()
    good, bad = loop.create_future(), loop.create_future()
    loop.call_soon(good.set_result, 7)
    loop.call_soon(bad.set_exception, ZeroDivisionError())

    assert await within(good, 60) == 7
    with pytest.raises(ZeroDivisionError):
        await within(bad, 60)


async def test_one_that_does_not_is_named() -> None:
    with pytest.raises(Stuck, match=r"within 0\.01 s"):
        await within(asyncio.get_running_loop().create_future(), 0.01)


async def test_a_stuck_batch_ends_the_service_and_all_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = asyncio.Event()
    rig = Rig(on_failure=failed.set, compute_timeout=0.2)
    running = await rig.busy()
    waiting = rig.submit("waits")
    await settle()

    await failed.wait()
    tasks = (running, waiting, rig.submit("later"))
    reasons = [(await refusal(task)).reason for task in tasks]
    await rig.scheduler.close()  # does not wait for what is stuck

    assert reasons == [errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE] * 3
    assert "a batch has not come back" in caplog.text
    rig.predictor.open()


async def test_a_batch_that_was_known_to_take_long_has_ten_times_as_long() -> None:
    rig = Rig(compute_timeout=0.01)
    rig.scheduler.costs.observe(("m@v1", "embed_texts"), 1, 60_000)
    running = await rig.busy()
    await asyncio.sleep(0.1)  # many times the least

    rig.predictor.open()

    assert (await running).outputs
    await rig.scheduler.close()
