"""How long the front's event loop is kept, and by what: nobody is answered meanwhile.

A worker is asked by four callers of small raw pictures and two of a camera's JPEGs without pause,
and beside them for one raw picture of some size, again and again. Its own meter says how late the
loop came to its timers; the first leg has small pictures alone. Of a large message it tells what
processor time the front spends on it, and what a grpc.aio server does that reads it and looks at
nothing (`echoing.py`). Prints a table and writes benchmarks/results/loop_delay.md.

    python benchmarks/loop_delay.py [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from rich.progress import track

import tectum
from machine import heading
from served import Served, free_port, processor_seconds, served
from serving_bare import photograph
from small import NAME, PICTURE, publish_small
from tectum import Priority

SIDES = (0, 1024, 2048, 4096)
"""Of the large pictures, pixels: 3, 13 and 50 MB. 0: none come."""
SMALL_CALLERS, JPEG_CALLERS, PAUSE = 4, 2, 0.25
ALLOWED = 0.005
MESSAGES = 12
"""That are sent alone, for what one takes."""
METER = "tectum_loop_delay_seconds_bucket"


@dataclass
class Leg:
    """One load."""

    side: int
    late: dict[float, float]
    """How many timers were so late at most, seconds, by the meter's buckets."""
    messages: int
    """Large ones that were answered."""
    ours: float
    """Processor seconds of the front for one of them."""
    bare: float
    """The same of a server that does nothing with it."""

    @property
    def megabytes(self) -> float:
        """Of a large message."""
        return 3 * self.side**2 / 1e6

    @property
    def rings(self) -> float:
        """Timers."""
        return self.late[float("inf")]

    @property
    def beyond(self) -> float:
        """Timers that were later than is allowed."""
        return self.rings - self.late[ALLOWED]

    @property
    def longest(self) -> float:
        """A bound that none exceeded, seconds."""
        return min(bound for bound, count in self.late.items() if count == self.rings)


def buckets(worker: Served) -> dict[float, float]:
    """The meter's, cumulative."""
    lines = re.findall(rf'^{METER}\{{le="([^"]+)"\}} (\S+)$', worker.metrics(), re.MULTILINE)
    return {float(bound): float(count) for bound, count in lines}


def large(side: int) -> np.ndarray:
    """uint8[side, side, 3]."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


async def loaded(worker: Served, side: int, seconds: float) -> tuple[dict[float, float], int]:
    """What the meter says of a load, and how many large messages were answered in it."""
    done, answered = asyncio.Event(), 0

    async def ask(client: tectum.AsyncClient, picture: np.ndarray | bytes, pause: float) -> int:
        count = 0
        while not done.is_set():
            await client.embed_images([picture], kind="pooled", priority=Priority.BULK, timeout=60)
            count += 1
            await asyncio.sleep(pause)
        return count

    async with tectum.AsyncClient(worker.address) as client:
        callers = [asyncio.create_task(ask(client, PICTURE, 0.0)) for _ in range(SMALL_CALLERS)]
        callers += [
            asyncio.create_task(ask(client, photograph(), 0.0)) for _ in range(JPEG_CALLERS)
        ]
        async with tectum.AsyncClient(worker.address) as other:
            if side:
                callers.append(asyncio.create_task(ask(other, large(side), PAUSE)))
            await asyncio.sleep(seconds / 4)
            before = buckets(worker)
            await asyncio.sleep(seconds)
            after = buckets(worker)
            done.set()
            counts = await asyncio.gather(*callers)
            answered = counts[-1] if side else 0
    return {bound: after[bound] - before.get(bound, 0.0) for bound in after}, answered


async def ours(worker: Served, side: int) -> float:
    """Processor seconds of the front for a large message that comes alone."""
    front = worker.pids()["front"]
    async with tectum.AsyncClient(worker.address) as client:
        picture = large(side)
        await client.embed_images([picture], kind="pooled", timeout=60)
        before = processor_seconds(front)
        for _ in range(MESSAGES):
            await client.embed_images([picture], kind="pooled", timeout=60)
    return (processor_seconds(front) - before) / MESSAGES


@contextmanager
def echoing() -> Iterator[tuple[int, int]]:
    """A server that does nothing: its port and its process."""
    port = free_port()
    script = Path(__file__).with_name("echoing.py")
    command = [sys.executable, str(script), str(port), "16"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def bare(side: int) -> float:
    """Processor seconds of grpc.aio alone for as large a message."""
    options = [("grpc.max_send_message_length", -1)]
    with echoing() as (port, pid), grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        ask: Callable[..., bytes] = channel.unary_unary("/any/thing")
        message = bytes(3 * side**2)
        ask(message, timeout=60)
        before = processor_seconds(pid)
        for _ in range(MESSAGES):
            ask(message, timeout=60)
            time.sleep(0.01)
        return (processor_seconds(pid) - before) / MESSAGES


def leg(worker: Served, side: int, seconds: float) -> Leg:
    """One load, and what of it is grpc's."""
    late, answered = asyncio.run(loaded(worker, side, seconds))
    if not side:
        return Leg(side, late, answered, 0.0, 0.0)
    return Leg(side, late, answered, asyncio.run(ours(worker, side)), bare(side))


def report(legs: list[Leg]) -> str:
    """A table and verdicts."""
    lines = [
        "| large messages, MB | of them | timers | later than 5 ms | longest, at most ms | "
        "the front's processor ms a message | of grpc alone |",
        "|" + " --- |" * 7,
    ]
    lines += [
        f"| {one.megabytes:.1f} | {one.messages} | {one.rings:.0f} | {one.beyond:.0f} | "
        f"{1000 * one.longest:g} | {1000 * one.ours:.1f} | {1000 * one.bare:.1f} |"
        for one in legs
    ]
    lines.append("")
    for one in legs:
        holds = one.longest <= ALLOWED
        what = f"messages of {one.megabytes:.0f} MB" if one.side else "small messages alone"
        lines.append(f"- the loop is never kept > 5 ms, {what}: {'PASS' if holds else 'FAIL'}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each leg")
    default = Path(__file__).parent / "results/loop_delay.md"
    parser.add_argument("--out", type=Path, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = publish_small(Path(folder))
        with served(repository, NAME, log=Path(folder, "log")) as worker:
            legs = [
                leg(worker, side, given.seconds) for side in track(SIDES, "legs", transient=True)
            ]
    text = heading("How long the front's event loop is kept") + "\n" + report(legs)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
