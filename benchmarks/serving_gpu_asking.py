"""Who asks a worker for a GPU: processes of their own, since one cannot send what a GPU computes.

    python benchmarks/serving_gpu_asking.py HOST:PORT SIDE ITEMS SECONDS callers COUNT
    python benchmarks/serving_gpu_asking.py HOST:PORT SIDE ITEMS SECONDS rate CALLS_A_SECOND

Each sends raw pictures in calls of so many. It says that it is ready, reads when all begin, on the
machine's monotonic clock, and prints, as JSON, how long after that each call ended, what it took
and whether it was answered.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tectum_cli.load.arrivals import poisson
from tectum_cli.load.driving import Outcome, Result, closed_loop, open_loop
from tectum_cli.load.pictures import drawn
from tectum_cli.load.target import Target
from tectum_cli.load.traffic import Traffic
from tectum_cli.load.worker import worker_calls

__all__ = ["Asked", "ask"]

_SETTLING = 0.25
"""Of a leg, which does not count: at first caches fill and callers fall into step."""
_MOST_OPEN = 4096
_READY = "ready\n"
_AHEAD = 0.5
"""Seconds from when all are told to begin until they do."""
_OP = "embed_images"


@dataclass(frozen=True)
class Asked:
    """What came of a leg."""

    images: float
    """Answered, a second."""
    took_ms: tuple[float, ...]
    """Of each call that was answered, from when it was meant to be sent."""
    lost: int
    """Calls that were not answered."""


def ask(
    address: str, side: int, items: int, seconds: float, how: str, much: float, processes: int
) -> Asked:
    """Ask from several processes at once.

    Args:
        address: of the worker.
        side: of the pictures.
        items: pictures of a call.
        seconds: how long.
        how: `callers` in a closed loop, or at a `rate`.
        much: callers, or calls a second, of all processes together.
        processes: that ask, each for its part.
    """
    running = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                *map(str, (address, side, items, seconds, how)),
                str(much / processes),
                str(number),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        _begin_together(running)
        told = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            with process:  # its pipes are closed, and it is waited for
                process.kill()
    if any(process.returncode for process in running):
        raise RuntimeError("a process that asks has failed")
    return asked([call for text in told for call in json.loads(text)], items, seconds)


def _begin_together(running: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until all are ready, and tell them one time to begin at: each counts from there."""
    for process in running:
        if process.stdout is None or process.stdout.readline() != _READY:
            raise RuntimeError("a process that asks has failed")
    begin = time.monotonic() + _AHEAD
    for process in running:
        if process.stdin is not None:
            process.stdin.write(f"{begin}\n")
            process.stdin.flush()


def asked(calls: Sequence[tuple[float, float, bool]], items: int, seconds: float) -> Asked:
    """What calls came to: of each when it ended and what it took, seconds, and if it was answered.

    Ends are told from one moment for all who ask: by clocks of their own, those who begin later
    would add what was answered while others had ended.

    Only those count that ended after the leg has settled, and before it was over.
    """
    begin = _SETTLING * seconds
    counted = [call for call in calls if begin <= call[0] < seconds]
    took = tuple(1000 * took for _, took, answered in counted if answered)
    lost = sum(not answered for _, _, answered in counted)
    return Asked(items * len(took) / (seconds - begin), took, lost)


async def _ask(
    address: str, side: int, items: int, seconds: float, how: str, much: float, seed: int
) -> tuple[float, list[Result]]:
    """What came of each call, and how many seconds after all were to begin this one did."""
    pictures = [drawn(side, side, max(2, items), seed)]
    target = Target(address, "", "", pictures, items, (_OP,))
    dice = random.Random(seed)
    draw = partial(Traffic({_OP: 1.0}).draw, dice)
    async with worker_calls(target) as (_, calls):
        print(_READY, end="", flush=True)
        begin = float(await asyncio.to_thread(sys.stdin.readline))
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        late = time.monotonic() - begin
        if how == "callers":
            return late, await closed_loop(draw, calls, max(1, round(much)), seconds)
        return late, await open_loop(poisson(much, seconds, dice), draw, calls, _MOST_OPEN)


def main(address: str, side: str, items: str, seconds: str, how: str, much: str, seed: str) -> None:
    """Ask, and print."""
    late, results = asyncio.run(
        _ask(address, int(side), int(items), float(seconds), how, float(much), int(seed))
    )
    print(json.dumps(ended(late, results)))


def ended(late: float, results: Sequence[Result]) -> list[tuple[float, float, bool]]:
    """Calls as `asked` takes them, of who began so many seconds after all were to."""
    return [
        (late + one.at + one.took, one.took, one.answer.outcome is Outcome.ANSWERED)
        for one in results
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
