"""What the front costs: calls a second of a worker whose model takes a millisecond, beside an echo.

The same client asks both with the same bytes in turns within one run: `tectum serve` with a small
bundle, and a grpc.aio server that does nothing (`echoing.py`), its answers as long as the worker's.
With so many callers it counts calls a second, with one it times each. Neither client nor echo makes
messages of the bytes. Prints a table and writes benchmarks/results/frontend.md.

    python benchmarks/frontend.py [--rounds 10] [--seconds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from rich.progress import track

from machine import heading
from served import Served, free_port, served
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
SHARE, MORE = 0.5, 0.001
"""Of the echo's calls a second; seconds beyond echo and forward."""
(PICTURE,) = drawn(SIDE, SIDE, 1, seed=0)
MODEL = ModelConfig(
    vision=VisionConfig(
        transformer=TransformerConfig(width=128, depth=2, heads=2, hidden=256),
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


class Asking:
    """One server, asked with the same bytes again and again."""

    def __init__(self, channel: grpc.aio.Channel, asked: bytes) -> None:
        self._call: Any = channel.unary_unary(METHOD)
        self._asked = asked

    async def once(self) -> bytes:
        """One call's answer."""
        answer: bytes = await self._call(self._asked, timeout=60)
        return answer

    async def rate(self, seconds: float) -> float:
        """Calls a second of callers that ask again at once."""
        started, done = time.perf_counter(), 0

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                await self.once()
                done += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return done / (time.perf_counter() - started)

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

    echo: list[float] = field(default_factory=list)
    worker: list[float] = field(default_factory=list)
    """Calls a second."""
    batch: list[float] = field(default_factory=list)
    echo_alone: list[float] = field(default_factory=list)
    worker_alone: list[float] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)
    """Seconds, each the median of a round."""


@contextmanager
def echoing(size: int) -> Iterator[int]:
    """The echo, in a process of its own; gives its port."""
    port = free_port()
    command = [sys.executable, str(HERE / "echoing.py"), str(port), str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port
    finally:
        process.kill()
        process.wait()


def forwards(repository: Path) -> Callable[[float], float]:
    """Times the predictor alone, from the picture to its vector: a function of how long."""
    located, _ = Repository(repository).locate(NAME)
    predictor = Predictor(read_bundle(located, NAME))

    def timed(seconds: float) -> float:
        started, took = time.perf_counter(), list[float]()
        while not took or time.perf_counter() - started < seconds:
            began = time.perf_counter()
            predictor.embed_images([PICTURE], "pooled")
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    timed(0.5)
    return timed


async def run(worker: Served, repository: Path, rounds: int, seconds: float) -> Found:
    """Both in turns."""
    asked, forward, found = request(), forwards(repository), Found()
    async with grpc.aio.insecure_channel(worker.address) as one:
        ours = Asking(one, asked)
        size = len(await ours.once())
        with echoing(size) as port:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as other:
                theirs = Asking(other, asked)
                for asking in (ours, theirs):
                    await asking.rate(seconds)
                for _ in track(range(rounds), "rounds", transient=True):
                    found.echo.append(await theirs.rate(seconds))
                    before = _batches(worker)
                    found.worker.append(await ours.rate(seconds))
                    after = _batches(worker)
                    found.batch.append((after[1] - before[1]) / (after[0] - before[0]))
                    found.forward.append(forward(seconds / 6))
                    found.echo_alone.append(statistics.median(await theirs.alone(seconds / 6)))
                    found.worker_alone.append(statistics.median(await ours.alone(seconds / 6)))
    return found


def _batches(worker: Served) -> tuple[float, float]:
    """Batches and items so far."""
    name = "tectum_batch_size"
    return worker.total(f"{name}_count"), worker.total(f"{name}_sum")


def report(found: Found) -> str:
    """A table and verdicts; ratios and differences are of each round, and then their medians."""
    shares = [ours / theirs for ours, theirs in zip(found.worker, found.echo, strict=True)]
    more = [
        worker - echo - forward
        for worker, echo, forward in zip(
            found.worker_alone, found.echo_alone, found.forward, strict=True
        )
    ]
    rows: dict[str, tuple[Sequence[float], float, str]] = {
        f"echo, {CALLERS} callers, calls/s": (found.echo, 1, ".0f"),
        f"worker, {CALLERS} callers, calls/s": (found.worker, 1, ".0f"),
        "worker ÷ echo": (shares, 1, ".2f"),
        "pictures a batch": (found.batch, 1, ".1f"),
        "echo, one caller, ms": (found.echo_alone, 1000, ".2f"),
        "forward alone, ms": (found.forward, 1000, ".2f"),
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
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each leg of many callers")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in the engine")
    parser.add_argument("--out", type=Path, default=HERE / "results/frontend.md")
    given = parser.parse_args()
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
