"""Robots that send a camera's frames at a rate, and write down what became of each.

A robot films from when its stream is accepted, at its own moment of the period; it waits for no
answer. Of frames that cannot leave in time the newest is sent, as of any stream.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from typing import Any

import tectum
from tectum import AsyncClient, Frame, FrameResult, FrameStatus, Priority
from tectum_cli.load.pictures import Picture
from tectum_cli.load.target import Target
from tectum_cli.load.traffic import Traffic

__all__ = ["Filmed", "Robot", "Shown", "drive", "robots_of"]


class Shown(StrEnum):
    """What became of a frame."""

    OK = "ok"
    SUPERSEDED = "superseded"
    """A newer one came to the server before its turn."""
    STALE = "stale"
    FAILED = "failed"
    UNSENT = "unsent"
    """A newer one came before it could leave, or the load was ended."""


_SHOWN = {
    FrameStatus.OK: Shown.OK,
    FrameStatus.SUPERSEDED: Shown.SUPERSEDED,
    FrameStatus.STALE: Shown.STALE,
}
"""By the SDK's words; any other has failed."""


@dataclass(slots=True)
class Filmed:
    """One frame; times are seconds from the load's beginning."""

    at: float
    """When it was captured."""
    heard: float | None = None
    """When it was heard what became of it. None: it was not."""
    shown: Shown = Shown.UNSENT
    reason: str = ""
    """Why it failed."""
    paired: bool = False
    """Whether its answer has a latent action."""
    compute: float = 0.0
    """Seconds of its batch."""
    batch: int = 0
    """Items computed together."""

    @property
    def age(self) -> float | None:
        """Seconds from its capture until its answer was heard. None: it was not."""
        return None if self.heard is None else self.heard - self.at


@dataclass(slots=True)
class Robot:
    """One camera's stream."""

    pictures: Sequence[Picture]
    """What it sees, in turn."""
    fps: float
    first: float
    """Seconds from the beginning, or from when its stream is accepted, to its first frame."""
    options: Mapping[str, Any]
    """Of its stream, as `tectum.StreamOptions`."""
    frames: list[Filmed] = field(default_factory=list)
    """By their ids."""
    ended: str = ""
    """Why its stream did by itself. Empty: it did not."""

    @property
    def priority(self) -> Priority:
        """Of its stream."""
        return Priority(self.options["priority"])

    async def live(
        self, client: AsyncClient, began: float, ends: float, seen: Callable[[], None]
    ) -> None:
        """Stream until then, and hear the last answers.

        Args:
            client: whose connection it takes.
            began: when the load did, `time.time()`.
            ends: when its last frame is, seconds after that.
            seen: told at each answer.
        """
        try:
            async with client.stream(self._film(began, ends), **self.options) as stream:
                async for result in stream:
                    self._hear(result, time.time() - began)
                    seen()
        except tectum.TectumError as error:
            self.ended = error.reason or type(error).__name__

    async def _film(self, began: float, ends: float) -> AsyncIterator[Frame]:
        pictures = cycle(self.pictures)
        due = time.time() - began + self.first
        while due < ends:
            await asyncio.sleep(max(0.0, began + due - time.time()))
            captured = time.time()
            self.frames.append(Filmed(captured - began))
            yield Frame(next(pictures), captured, len(self.frames) - 1)
            due += 1 / self.fps

    def _hear(self, result: FrameResult, now: float) -> None:
        frame = self.frames[result.frame_id]
        frame.heard, frame.shown = now, _SHOWN.get(result.status, Shown.FAILED)
        frame.paired = result.latent_action is not None
        if result.error is not None:
            frame.reason = result.error.reason or result.error.code
        if result.info is not None:
            timings = result.info.timings
            frame.compute, frame.batch = timings.compute, timings.batch_size


async def drive(
    robots: Sequence[Robot],
    clients: Sequence[AsyncClient],
    seconds: float,
    seen: Callable[[float, int], None],
) -> None:
    """Let robots live, all at once; cancelled, they end, and keep what they have heard.

    Args:
        robots: in turn on the clients' connections.
        clients: connected.
        seconds: how long they film.
        seen: told at each answer how far it is, in seconds, and how many streams are open.
    """
    began = time.time()

    def heard() -> None:
        seen(min(seconds, time.time() - began), sum(not robot.ended for robot in robots))

    with suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            for robot, client in zip(robots, cycle(clients), strict=False):
                group.create_task(robot.live(client, began, seconds, heard))


def robots_of(
    streams: int, fps: float, lifespan: float, traffic: Traffic, dice: random.Random, target: Target
) -> list[Robot]:
    """So many robots, drawn.

    Args:
        streams: how many.
        fps: frames a second of each.
        lifespan: milliseconds that a frame stays useful. 0: the server's own.
        traffic: their priorities and pictures' sizes.
        dice: to draw from.
        target: what they ask for, and with what.
    """
    drawn = [traffic.draw(dice) for _ in range(streams)]
    shared = {
        "embed": "embed_images" in target.ops,
        "latent_actions": "latent_actions" in target.ops,
        "model": target.model,
        "lifespan": lifespan / 1000 or None,
    }
    return [
        Robot(
            target.pictures[one.size],
            fps,
            dice.random() / fps,
            {**shared, "priority": one.priority},
        )
        for one in drawn
    ]
