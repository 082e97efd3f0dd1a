"""How much of the bare forward pass a worker gives to its callers.

A ViT-B/32-shaped bundle with random weights; the bare forward (`serving_bare`) and the worker
(its own processes, the same cores) take turns within one run, so that both meet the same machine,
and both are begun anew several times, since each process has its own pace. Which batch the bare
forward likes best is found first, in a sweep of its own: the best of several noisy numbers of one
leg would be better than any batch is. Callers of photographs, as JPEG, stand beside the bound that
the same cores set: a picture's decoding, on all of them, and its share of the forward, one after
the other. Prints a table (`serving_report`) and writes benchmarks/results/serving.md.

    make bench
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import tectum
from machine import heading
from served import Served, served
from serving_bare import NAME, SIDE, Bare, bare, make_bundle, photograph
from serving_report import CALLERS, Round, table
from tectum_cli.load.pictures import Picture

BATCHES = (1, 2, 4, 8, 16, 32)
LEAST_ANSWERS = 5
"""So many to each caller, in a leg however slow."""


def picture() -> NDArray[np.uint8]:
    """A raw picture [SIDE, SIDE, 3]."""
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


async def closed_loop(port: int, sent: Picture, callers: int, seconds: float) -> float:
    """Images a second of so many callers of one picture each, for so long and some batches.

    Neither the start nor the last calls, which fewer and fewer share, count; and since answers come
    a batch at a time, they are counted from the end of one such burst to the end of another.
    """
    answered = list[float]()
    async with tectum.AsyncClient(f"127.0.0.1:{port}", timeout=60.0) as client:
        await client.embed_images([sent])
        ends, least = time.perf_counter() + seconds, LEAST_ANSWERS * callers

        async def call() -> None:
            while time.perf_counter() < ends or len(answered) < least:
                await client.embed_images([sent])
                answered.append(time.perf_counter())

        await asyncio.gather(*(call() for _ in range(callers)))
    steady = range(callers, max(least, sum(when < ends for when in answered)) - 1)
    quiet = seconds / 1000
    bursts = [i for i in steady if answered[i + 1] - answered[i] > quiet] or steady
    first, last = bursts[0], bursts[-1]
    return (last - first) / (answered[last] - answered[first])


def turn_about(asked: Bare, port: int, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of bare forwards of one image and of one caller's calls, one after the other.

    A machine whose pace drifts by tenths then drifts for both.
    """
    sent = picture()
    alone, served = list[float](), list[float]()
    with tectum.Client(f"127.0.0.1:{port}", timeout=60.0) as client:
        client.embed_images([sent])
        started = time.perf_counter()
        while not served or time.perf_counter() - started < seconds:
            alone.append(asked.one())
            began = time.perf_counter()
            client.embed_images([sent])
            served.append(time.perf_counter() - began)
    return alone, served


def batches(worker: Served) -> tuple[float, float]:
    """Batches and items so far, from the worker's own metric."""
    count, items = (
        worker.total(f"tectum_batch_size_{what}", op="embed_images") for what in ("count", "sum")
    )
    return count, items


def sweep(repository: Path, rounds: int, seconds: float) -> dict[int, float]:
    """Of the bare forward, images a second by batch size, medians over turns of all sizes."""
    with bare(repository) as asked:
        turns = [{size: asked.throughput(size, seconds) for size in BATCHES} for _ in range(rounds)]
    return {size: statistics.median(turn[size] for turn in turns) for size in BATCHES}


def start(repository: Path, best: int, rounds: int, seconds: float) -> list[Round]:
    """Rounds of a fresh worker and a fresh process for the bare forward."""
    found = []
    with bare(repository) as asked, served(repository, NAME) as worker:
        # The first calls settle the caches.
        asked.throughput(best, seconds / 2)
        for sent in (picture(), photograph()):
            asyncio.run(closed_loop(worker.port, sent, CALLERS, seconds))
        for _ in range(rounds):
            alone = asked.throughput(best, seconds)
            before = batches(worker)
            answered = asyncio.run(closed_loop(worker.port, picture(), CALLERS, seconds))
            after = batches(worker)
            batch = (after[1] - before[1]) / (after[0] - before[0])
            decoded = asked.decoding(seconds / 3)
            seen = asyncio.run(closed_loop(worker.port, photograph(), CALLERS, seconds))
            singles = turn_about(asked, worker.port, seconds)
            found.append(Round(alone, answered, batch, decoded, seen, *singles))
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5, help="fresh pairs of processes")
    parser.add_argument("--rounds", type=int, default=20, help="of all starts together")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each leg")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/serving.md")
    given = parser.parse_args()
    rounds, rest = divmod(given.rounds, max(given.starts, 1))
    if rest or not rounds:
        parser.error(f"--rounds is a multiple of --starts, not {given.rounds} of {given.starts}")
    with tempfile.TemporaryDirectory() as folder:
        repository = make_bundle(Path(folder))
        sizes = sweep(repository, 5, given.seconds / 3)
        best = max(sizes, key=sizes.__getitem__)
        starts = [start(repository, best, rounds, given.seconds) for _ in range(given.starts)]
    report = heading("Serving against the bare forward") + "\n" + table(sizes, best, starts)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(report)
    print(report)


if __name__ == "__main__":
    main()
