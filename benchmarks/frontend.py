"""What the front costs: calls a second of a worker whose model takes a millisecond, beside an echo.

The same client asks both with the same bytes in turns within one run: `tectum serve` with a small
bundle, and a grpc.aio server that does nothing (`echoing.py`), its answers as long as the worker's.
With so many callers it counts calls a second, and what processor time each process takes for a
call; with one it times each. Neither client nor echo makes messages of the bytes. The forward
passes of batches as large as the worker's are timed too: where all processes share few cores,
client, echo and forward leave the worker no more calls than "the most there could be". With py-spy
(`pip install py-spy`) it tells where the worker's time goes. Prints a table and writes
benchmarks/results/frontend.md.

    python benchmarks/frontend.py [--rounds 10] [--seconds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import torch
from rich.progress import track

from machine import heading
from profiling import available, profiled
from served import Served, free_port, processor_seconds, served
from tectum.v1 import call_pb2, embed_pb2, image_pb2
from tectum_cli.load.pictures import drawn
from tectum_core.architecture import ModelConfig, TransformerConfig, VisionConfig
from tectum_core.bundle import Repository, read_bundle
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.untrained import write_untrained

NAME, SIDE, CALLERS = "millisecond", 64, 32
HERE = Path(__file__).parent
METHOD = "/tectum.v1.PerceptionService/EmbedImages"
MODULES = 12
"""Of each process that are told, those that take most."""
SHARE, MORE = 0.5, 0.001
"""Of the echo's calls a second; seconds beyond echo and forward."""
(PICTURE,) = drawn(SIDE, SIDE, 1, seed=0)
MODEL = ModelConfig(
    vision=VisionConfig(
        transformer=TransformerConfig(width=64, depth=2, heads=1, hidden=128),
        image_size=SIDE,
        patch_size=16,
    )
)


def publish(folder: Path) -> Path:
    """A repository with the bundle."""
    write_untrained(folder / "bundle", MODEL, ImagePreprocessing(size=SIDE))
    Repository(folder / "repository").publish(folder / "bundle", NAME)
    return folder / "repository"


def request() -> bytes:
    """One raw picture."""
    raw = image_pb2.RawImage(height=SIDE, width=SIDE, data=PICTURE.tobytes())
    message = embed_pb2.EmbedImagesRequest(images=[image_pb2.Image(raw=raw)])
    message.vector.kind = call_pb2.VECTOR_KIND_POOLED
    return message.SerializeToString()


@dataclass(frozen=True)
class Leg:
    """What many callers found."""

    rate: float
    """Calls a second."""
    busy: dict[str, float]
    """Seconds of processor time for a call, by process."""


class Asking:
    """One server, asked with the same bytes again and again."""

    def __init__(self, channel: grpc.aio.Channel, asked: bytes) -> None:
        self._call: Any = channel.unary_unary(METHOD)
        self._asked = asked

    async def once(self) -> bytes:
        """One call's answer."""
        answer: bytes = await self._call(self._asked, timeout=60)
        return answer

    async def many(self, seconds: float, pids: Mapping[str, int]) -> Leg:
        """So many callers that ask again at once; told is what these processes take for it."""
        before = {name: processor_seconds(pid) for name, pid in pids.items()}
        started, done = time.perf_counter(), 0

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                await self.once()
                done += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        rate = done / (time.perf_counter() - started)
        return Leg(
            rate, {name: (processor_seconds(pids[name]) - before[name]) / done for name in pids}
        )

    async def alone(self, seconds: float) -> list[float]:
        """Seconds of each call of one caller."""
        started, took = time.perf_counter(), list[float]()
        while not took or time.perf_counter() - started < seconds:
            began = time.perf_counter()
            await self.once()
            took.append(time.perf_counter() - began)
        return took


@dataclass
class Found:
    """What was measured, round by round."""

    echo: list[Leg] = field(default_factory=list)
    worker: list[Leg] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    echo_alone: list[float] = field(default_factory=list)
    worker_alone: list[float] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)
    paced: list[float] = field(default_factory=list)
    """Seconds, each the median of a round; `paced`: the forward as often as one caller asks."""
    computed: list[float] = field(default_factory=list)
    """Seconds of processor time that a picture takes in batches as large as the worker's."""
    profile: dict[str, Counter[str]] = field(default_factory=dict)
    """Samples by process and module."""

    def most(self) -> list[float]:
        """Of each round: the share of the echo's rate that its work and the forward leave room for.

        Where processes wait for a core: what the echo's client and server take for a call, beside
        that and a picture's forward pass.
        """
        bare = [sum(leg.busy.values()) for leg in self.echo]
        return [one / (one + more) for one, more in zip(bare, self.computed, strict=True)]


@contextmanager
def echoing(size: int) -> Iterator[tuple[int, int]]:
    """The echo, in a process of its own; gives its port, and the process' number."""
    port = free_port()
    command = [sys.executable, str(HERE / "echoing.py"), str(port), str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def read(repository: Path) -> Predictor:
    """The model, in this process."""
    located, _ = Repository(repository).locate(NAME)
    return Predictor(read_bundle(located, NAME))


def computes(predictor: Predictor, size: int, seconds: float) -> float:
    """Seconds of processor time for each picture, in batches of so many."""
    began, started, done = time.process_time(), time.perf_counter(), 0
    while not done or time.perf_counter() - started < seconds:
        predictor.embed_images([PICTURE] * size, "pooled")
        done += size
    return (time.process_time() - began) / done


def forwards(predictor: Predictor) -> Callable[[float, float], float]:
    """Times the predictor alone, from the picture to its vector: for how long, with what pauses.

    After a pause of some milliseconds caches are cold: the same work takes longer.
    """

    def timed(seconds: float, pause: float) -> float:
        started, took = time.perf_counter(), list[float]()
        while not took or time.perf_counter() - started < seconds:
            if pause:
                time.sleep(pause)
            began = time.perf_counter()
            predictor.embed_images([PICTURE], "pooled")
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    timed(0.5, 0.0)
    return timed


async def run(worker: Served, repository: Path, rounds: int, seconds: float) -> Found:
    """Both in turns."""
    asked, predictor, found = request(), read(repository), Found()
    forward = forwards(predictor)
    async with grpc.aio.insecure_channel(worker.address) as one:
        ours = Asking(one, asked)
        size = len(await ours.once())
        with echoing(size) as (port, pid):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as other:
                theirs = Asking(other, asked)
                echo = {"client": os.getpid(), "echo": pid}
                processes = {"client": os.getpid(), **worker.pids()}
                for asking in (ours, theirs):
                    await asking.many(seconds, {})
                for _ in track(range(rounds), "rounds", transient=True):
                    found.echo.append(await theirs.many(seconds, echo))
                    before = _batches(worker)
                    found.worker.append(await ours.many(seconds, processes))
                    after = _batches(worker)
                    found.batch.append((after[1] - before[1]) / (after[0] - before[0]))
                    batch = max(round(found.batch[-1]), 1)
                    found.computed.append(computes(predictor, batch, seconds / 6))
                    found.forward.append(forward(seconds / 6, 0.0))
                    found.echo_alone.append(statistics.median(await theirs.alone(seconds / 6)))
                    alone = statistics.median(await ours.alone(seconds / 6))
                    found.worker_alone.append(alone)
                    pause = max(alone - found.forward[-1], 0.001)
                    found.paced.append(forward(seconds / 6, pause))
                if available():
                    with profiled(worker.pids(), 5 * seconds) as found.profile:
                        await ours.many(5 * seconds, {})
    return found


def _batches(worker: Served) -> tuple[float, float]:
    """Batches and items so far."""
    name = "tectum_batch_size"
    return worker.total(f"{name}_count"), worker.total(f"{name}_sum")


def report(found: Found) -> str:
    """A table and verdicts; ratios and differences are of each round, and then their medians."""
    shares = [
        ours.rate / theirs.rate for ours, theirs in zip(found.worker, found.echo, strict=True)
    ]
    more = [
        worker - echo - forward
        for worker, echo, forward in zip(
            found.worker_alone, found.echo_alone, found.forward, strict=True
        )
    ]
    rows: dict[str, tuple[Sequence[float], float, str]] = {
        f"echo, {CALLERS} callers, calls/s": ([leg.rate for leg in found.echo], 1, ".0f"),
        f"worker, {CALLERS} callers, calls/s": ([leg.rate for leg in found.worker], 1, ".0f"),
        "worker ÷ echo": (shares, 1, ".2f"),
        "the most there could be, if cores are what all wait for": (found.most(), 1, ".2f"),
        "pictures a batch": (found.batch, 1, ".1f"),
        **_busy("echo", found.echo),
        **_busy("worker", found.worker),
        "forward alone, in such batches, processor ms/picture": (found.computed, 1000, ".2f"),
        "echo, one caller, ms": (found.echo_alone, 1000, ".2f"),
        "forward alone, again and again, ms": (found.forward, 1000, ".2f"),
        "forward alone, as often as one caller asks, ms": (found.paced, 1000, ".2f"),
        "worker, one caller, ms": (found.worker_alone, 1000, ".2f"),
        "worker − echo − forward, ms": (more, 1000, ".2f"),
    }
    lines = ["| of each round | least | median | most |", "| --- | --- | --- | --- |"]
    for name, (values, scale, form) in rows.items():
        told = (format(scale * one, form) for one in _spread(values))
        lines.append(f"| {name} | {' | '.join(told)} |")
    share, beyond = statistics.median(shares), statistics.median(more)
    lines += [
        "",
        f"- calls a second ≥ {SHARE} of the echo's: {'PASS' if share >= SHARE else 'FAIL'}",
        f"- median ≤ echo + forward + 1 ms: {'PASS' if beyond <= MORE else 'FAIL'}",
        *_profile(found),
    ]
    return "\n".join(lines) + "\n"


def _profile(found: Found) -> Iterator[str]:
    """Where the worker's Python spends its time, a table for each process."""
    for process, samples in sorted(found.profile.items(), reverse=True):
        yield f"\n| {process}, by module | of its samples |\n| --- | --- |"
        for name, count in samples.most_common(MODULES):
            yield f"| {name} | {count / samples.total():.0%} |"


def _busy(name: str, legs: Sequence[Leg]) -> dict[str, tuple[Sequence[float], float, str]]:
    """Rows: processor time for a call, by process."""
    return {
        f"{name}, {CALLERS} callers: {process}, processor ms/call": (
            [leg.busy[process] for leg in legs],
            1000,
            ".2f",
        )
        for process in legs[0].busy
    }


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each leg of many callers")
    parser.add_argument("--threads", type=int, default=1, help="of torch, here and there")
    parser.add_argument("--out", type=Path, default=HERE / "results/frontend.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        repository = publish(Path(folder))
        log = Path(folder, "log")
        with served(repository, NAME, log=log, threads=given.threads) as worker:
            found = asyncio.run(run(worker, repository, given.rounds, given.seconds))
    text = heading("What the front costs") + "\n" + report(found)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
