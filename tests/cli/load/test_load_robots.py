"""Robots: every frame is written down once, with what became of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Self, cast

import numpy as np
import pytest

import tectum
from tectum import AsyncClient, Frame, FrameResult, FrameStatus, ItemError, Priority
from tectum_cli.load.robots import Robot, Shown, drive, robots_of
from tectum_cli.load.target import Target
from tectum_cli.load.traffic import Traffic

PICTURES = [np.zeros((2, 2, 3), np.uint8)] * 2
ERROR = ItemError("NOT_FOUND", "WHY", "frame", "none", None)
STATUSES = (FrameStatus.OK, FrameStatus.SUPERSEDED, FrameStatus.STALE, FrameStatus.FAILED)


class Server:
    """Answers the frames of each stream in turn with each status; every fifth it never had."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.refuses, self.asked, self.closed = refuses, list[dict[str, Any]](), 0

    def stream(self, frames: AsyncIterator[Frame], **options: Any) -> Stream:
        self.asked.append(options)
        return Stream(self, frames)


class Stream:
    """One of a server's."""

    def __init__(self, server: Server, frames: AsyncIterator[Frame]) -> None:
        self.server, self.frames = server, frames

    async def __aenter__(self) -> Self:
        if self.server.refuses is not None:
            raise self.server.refuses
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.closed += 1

    async def __aiter__(self) -> AsyncIterator[FrameResult]:
        async for frame in self.frames:
            assert frame.frame_id is not None
            if frame.frame_id % 5 < 4:
                status = STATUSES[frame.frame_id % 5]
                error = ERROR if status is FrameStatus.FAILED else None
                yield FrameResult(frame.frame_id, status, error, None, None, None, None, None, 0.0)


def robots(count: int, fps: float) -> list[Robot]:
    target = Target("", "", "", [PICTURES], 1, ("embed_images",))
    traffic = Traffic({"embed_images": 1.0}, {Priority.CONTROL: 1.0})
    return robots_of(count, fps, 250.0, traffic, random.Random(0), target)


async def driven(server: Server, fleet: list[Robot], seconds: float) -> None:
    await drive(fleet, [cast("AsyncClient", server)], seconds, lambda *_: None)


async def test_every_frame_is_written_down_with_what_became_of_it() -> None:
    server, fleet = Server(), robots(3, 100.0)

    await driven(server, fleet, 0.3)

    for robot in fleet:
        told = Counter(one.shown for one in robot.frames)
        assert len(robot.frames) >= 5
        assert told[Shown.OK] >= told[Shown.SUPERSEDED] >= told[Shown.STALE] >= 1
        assert told[Shown.FAILED] >= told[Shown.UNSENT] >= 1
        assert {one.reason for one in robot.frames if one.shown is Shown.FAILED} == {"WHY"}
        assert all((one.age is None) is (one.shown is Shown.UNSENT) for one in robot.frames)
    assert server.closed == 3


async def test_a_stream_asks_for_what_was_said() -> None:
    server = Server()

    await driven(server, robots(1, 100.0), 0.02)

    assert server.asked == [
        {
            "embed": True,
            "latent_actions": False,
            "model": "",
            "lifespan": 0.25,
            "priority": Priority.CONTROL,
        }
    ]


async def test_a_stream_that_is_refused_ends_alone_and_says_why() -> None:
    refused = Server(tectum.Overloaded("full", reason="QUEUE_FULL", retry_after=1.0))
    fleet = robots(2, 100.0)
    clients = [cast("AsyncClient", server) for server in (Server(), refused)]

    await drive(fleet, clients, 0.05, lambda *_: None)

    assert [robot.ended for robot in fleet] == ["", "QUEUE_FULL"]
    assert [bool(robot.frames) for robot in fleet] == [True, False]


async def test_a_fleet_that_is_ended_early_keeps_what_it_heard() -> None:
    server, fleet = Server(), robots(2, 200.0)
    task = asyncio.create_task(driven(server, fleet, 60.0))
    while not all(robot.frames for robot in fleet):
        await asyncio.sleep(0.005)

    task.cancel()
    await task

    assert all(robot.frames for robot in fleet)
    assert server.closed == 2


@pytest.mark.parametrize("fps", [1.0, 30.0])
def test_robots_film_at_moments_of_their_own(fps: float) -> None:
    first = [robot.first for robot in robots(20, fps)]

    assert all(0 <= one < 1 / fps for one in first)
    assert len(set(first)) == 20
