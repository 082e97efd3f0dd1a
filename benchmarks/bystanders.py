"""Callers, a robot and a look at the health, while something else happens to the worker."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import tectum
from small import PICTURE

__all__ = ["AWAY", "DEADLINE", "LATEST", "POOLED", "Bystanders"]

STREAM_HZ, LOOK, PROBE = 10.0, 0.02, 2.0
DEADLINE, LONG_DEADLINE, LIFESPAN, LATEST = 10.0, 60.0, 2.0, 90.0
"""Seconds: of a call, of one tried again, of a frame; within which a worker serves again."""
AWAY = {"ENGINE_UNAVAILABLE", "Unavailable"}
"""What callers are told while the engine is away, or the front."""
POOLED: Literal["pooled"] = "pooled"


@dataclass
class Bystanders:
    """What callers were told, by when they asked."""

    told: list[tuple[float, float, str]] = field(default_factory=list)
    """When a call began and ended, and how."""
    begun: dict[int, float] = field(default_factory=dict)
    """When each call that is under way began, by who asked."""
    patient: list[tuple[float, float, str]] = field(default_factory=list)
    """Of those who try again."""
    frames: list[tuple[float, str]] = field(default_factory=list)
    lost: str = ""
    """Why the stream ended, if it did by itself."""
    health: list[tuple[float, bool]] = field(default_factory=list)
    """Every change, and the first look."""

    async def call(self, client: tectum.AsyncClient, done: asyncio.Event) -> None:
        """Ask until done."""
        me = len(self.begun)
        while not done.is_set():
            self.begun[me] = time.monotonic()
            self.told.append(await _one(client, timeout=DEADLINE, retries=0))
            self.begun[me] = math.inf
            if self.told[-1][2] != "OK":
                await asyncio.sleep(0.02)

    async def insist(self, client: tectum.AsyncClient, done: asyncio.Event) -> None:
        """Ask until done, each time until there is an answer.

        The SDK tries again, but not where the worker cannot even be reached: then this does.
        """
        while not done.is_set():
            began = time.monotonic()
            while True:
                _, ended, what = await _one(client, timeout=LONG_DEADLINE, retries=10)
                if what not in AWAY or ended - began > LONG_DEADLINE:
                    break
                await asyncio.sleep(0.1)
            self.patient.append((began, ended, what))

    async def stream(self, client: tectum.AsyncClient, done: asyncio.Event) -> None:
        """A robot's camera, whose stream is opened anew when it is lost."""

        async def frames() -> AsyncIterator[tectum.Frame]:
            while not done.is_set():
                yield tectum.Frame(PICTURE, captured_at=time.time())
                await asyncio.sleep(1 / STREAM_HZ)

        options: dict[str, Any] = {"kind": POOLED, "lifespan": LIFESPAN, "reconnect": LATEST}
        try:
            async with client.stream(frames(), embed=True, **options) as stream:
                async for result in stream:
                    self.frames.append((time.monotonic(), result.status.value))
        except tectum.TectumError as error:
            self.lost = str(error)

    async def watch(self, address: str, done: asyncio.Event) -> None:
        """Look at the health again and again, over connections of its own."""
        async with tectum.AsyncClient(address) as client:
            while not done.is_set():
                try:
                    told = await client.health(timeout=PROBE, retries=0)
                    healthy = told is tectum.Health.SERVING
                except tectum.TectumError:
                    healthy = False
                if not self.health or self.health[-1][1] != healthy:
                    self.health.append((time.monotonic(), healthy))
                await asyncio.sleep(LOOK)

    def turned(self, healthy: bool, after: float) -> float | None:
        """When health became so, at or after a moment."""
        return next((when for when, what in self.health if what == healthy and when >= after), None)


async def _one(client: tectum.AsyncClient, **options: Any) -> tuple[float, float, str]:
    began = time.monotonic()
    try:
        await client.embed_images([PICTURE], kind=POOLED, **options)
    except tectum.TectumError as error:
        return began, time.monotonic(), error.reason or type(error).__name__
    return began, time.monotonic(), "OK"
