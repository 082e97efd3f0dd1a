"""How late the event loop is, is told; moments are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.server.worker.serving import Fronted, until

from tectum_server.worker.front.turning import RING_SECONDS, watch


async def test_a_loop_that_was_kept_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told, enough = list[float](), asyncio.Event()
    moments = iter([10.0, 10.0 + RING_SECONDS, 20.0, 20.0 + RING_SECONDS + 0.03, 30.0, 30.0])

    def late(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 3:
            enough.set()

    watching = asyncio.create_task(watch(late, lambda: next(moments, 40.0)))
    await enough.wait()
    watching.cancel()

    assert told == [0.0, pytest.approx(0.03), 0.0]


def test_a_front_measures_its_loop(fronted: Callable[..., Fronted]) -> None:
    front = fronted()

    def rings() -> float:
        return front.metric("tectum_loop_delay_seconds_count") or 0.0

    until(lambda: rings() > 2)

    told = front.metric("tectum_loop_delay_seconds_sum")
    assert told is not None
    assert 0 <= told < 60  # seconds, of a loop that turns
    before = rings()
    until(lambda: rings() > before)
    assert rings() > before
