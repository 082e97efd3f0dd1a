"""How much of a GPU's bare forward a worker gives to callers who send many pictures at once.

ViT-B/32 and ViT-L/14 shapes with random weights, bfloat16. Bare is one recorded graph of the trunk
on ready tensors, launched again and again, in the batch that suits it best. It takes turns with the
engine alone, which is given pictures in its own process, and with the worker, which is asked over
gRPC by processes of their own: how many a second in a closed loop, and how long a call takes at
half of that rate (Poisson). Each start is of fresh processes. MFU is the model's own arithmetic a
second over what the card's data sheet promises in bfloat16. Prints a table and
writes benchmarks/results/serving-gpu.md.

    make bench-gpu
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prometheus_client import CollectorRegistry

import tectum
from machine import PEAK_TFLOPS, heading
from served import Served, served
from serving_gpu_asking import Asked, ask
from serving_report import Estimate, estimate
from tectum_cli.load.report import percentile
from tectum_core.architecture import ModelConfig, TransformerConfig, VisionConfig
from tectum_core.bundle import Repository, read_bundle
from tectum_core.numerics import Numerics
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.untrained import write_untrained
from tectum_server.worker.engine.local import LocalEngine
from tectum_server.worker.engine.settings import EngineSettings
from tectum_server.worker.jobs import EmbedImages, Item, Job, Priority
from tectum_server.worker.metrics import EngineMetrics

RESULTS = Path(__file__).parent / "results" / "serving-gpu.md"
GATE, LOAD = 0.9, 0.5
BATCHES = (16, 32, 64, 128)
NEAR = 0.97
"""Of the best batch's rate: the smallest one that reaches it is measured in."""
MOST_ITEMS = 64
"""Pictures of a call at most, as a worker takes by default."""
AHEAD = 4
"""Batches' worth of pictures that are asked for at once."""
NAME = "trunk"


@dataclass(frozen=True)
class Shape:
    """A vision transformer."""

    name: str
    trunk: VisionConfig


def shape(name: str, width: int, depth: int, patch: int, side: int = 224) -> Shape:
    """A ViT as CLIP has it."""
    blocks = TransformerConfig(
        width=width, depth=depth, heads=width // 64, hidden=4 * width, activation="quick_gelu"
    )
    return Shape(
        name,
        VisionConfig(
            transformer=blocks,
            image_size=side,
            patch_size=patch,
            class_token=True,
            input_norm=True,
            patch_bias=False,
            pooling="class",
        ),
    )


SHAPES = (shape("ViT-B/32", 768, 12, 32), shape("ViT-L/14", 1024, 24, 14))


@dataclass(frozen=True)
class Round:
    """What one turn of each gave, pictures a second."""

    bare: float
    engine: float
    worker: float
    half: Asked
    """At half of the worker's rate."""


@dataclass(frozen=True)
class Found:
    """What was seen of a shape."""

    shape: Shape
    batch: int
    flops: float
    """Of one picture."""
    numerics: str
    """As the worker tells them."""
    starts: list[list[Round]]


def publish(shape: Shape, folder: Path) -> Path:
    """A repository that holds a bundle of it."""
    side = shape.trunk.image_size
    write_untrained(
        folder / "bundle", ModelConfig(vision=shape.trunk), ImagePreprocessing(size=side)
    )
    Repository(folder / "repository").publish(folder / "bundle", NAME)
    return folder / "repository"


class Bare:
    """The trunk in one batch: a recorded graph, or on a CPU the forward itself."""

    def __init__(self, predictor: Predictor, batch: int) -> None:
        side = predictor.config.images.size
        self._batch, self._device = batch, predictor.device
        pixels = torch.randn(batch, 3, side, side, device=self._device)
        vision = predictor.model.vision

        def forward() -> torch.Tensor:
            with torch.inference_mode():
                pooled: torch.Tensor = vision(pixels).pooled
                return pooled

        self._run: Callable[[], object] = forward
        if self._device.type == "cuda":
            beside = torch.cuda.Stream(self._device)
            with torch.cuda.stream(beside):
                for _ in range(3):
                    forward()
            beside.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=beside):
                self._answer = forward()  # which the graph writes to
            self._run = self._graph.replay

    def rate(self, seconds: float) -> float:
        """Pictures a second, for so long; one batch at least."""
        self._run()
        self._wait()
        started, done = time.perf_counter(), 0
        while not done or time.perf_counter() - started < seconds:
            for _ in range(8):  # enough ahead of the device, and not so much that it goes on long
                self._run()
            self._wait()
            done += 8 * self._batch
        return done / (time.perf_counter() - started)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def arithmetic(trunk: VisionConfig) -> float:
    """Floating-point operations of one picture's forward, in products of matrices alone.

    Each token passes 4·D² weights of attention and 2·D·hidden of the MLP, and meets every token
    twice; each multiplication comes with an addition.
    """
    blocks, tokens = trunk.transformer, trunk.patches + trunk.class_token + trunk.registers
    weights = 4 * blocks.width**2 + 2 * blocks.width * blocks.hidden
    each = tokens * weights + 2 * tokens**2 * blocks.width
    return 2.0 * (blocks.depth * each + trunk.patches * trunk.patch_values * blocks.width)


def best_batch(rates: dict[int, float]) -> int:
    """The smallest batch that is nearly as fast as the fastest."""
    return min(batch for batch, rate in rates.items() if rate >= NEAR * max(rates.values()))


def settings_for(batch: int) -> dict[str, Any]:
    """What worker and engine are told."""
    return {"precision": "bfloat16", "max_batch": batch, "max_queued_items": 4 * AHEAD * batch}


async def engine_rate(
    engine: LocalEngine, side: int, items: int, callers: int, seconds: float
) -> float:
    """Pictures a second of jobs of so many, from callers in the engine's own process."""
    pictures = np.random.default_rng(0).integers(0, 256, (items, side, side, 3), np.uint8)
    given = tuple(Item((picture,)) for picture in pictures)
    ended, loop = list[float](), asyncio.get_running_loop()
    begin, end = loop.time() + 0.25 * seconds, loop.time() + seconds

    async def call() -> None:
        while loop.time() < end:
            job = Job(NAME, EmbedImages("pooled"), given, Priority.BULK, loop.time() + 60)
            await engine.submit(job)
            ended.append(loop.time())

    await asyncio.gather(*(call() for _ in range(callers)))
    return items * sum(begin <= when < end for when in ended) / (end - begin)


@contextmanager
def engine_for(repository: Path, device: str, batch: int) -> Iterator[Callable[..., float]]:
    """An engine in this process; asked as `engine_rate` without its first argument."""
    given = EngineSettings(str(repository), (NAME,), device=device, **settings_for(batch))
    with asyncio.Runner() as runner:
        engine = LocalEngine(given, EngineMetrics(CollectorRegistry()))
        runner.run(engine.start())
        try:
            yield lambda *asked: runner.run(engine_rate(engine, *asked))
        finally:
            runner.run(engine.close())


def start(
    repository: Path, shape: Shape, bare: Bare, batch: int, rounds: int, given: argparse.Namespace
) -> tuple[str, list[Round]]:
    """Rounds of a fresh engine and a fresh worker; and what numerics it tells."""
    side, items = shape.trunk.image_size, min(batch, MOST_ITEMS)
    callers, found = max(2, AHEAD * batch // items), list[Round]()
    more = {"fronts": given.fronts, "request_memory_bytes": 2**30, "device": given.device}
    with (
        engine_for(repository, given.device, batch) as alone,
        served(repository, NAME, **settings_for(batch), **more) as worker,
    ):

        def asked(how: str, much: float, seconds: float) -> Asked:
            address = worker.address
            return ask(address, side, items, seconds, how, much, given.askers)

        each = callers + -callers % given.askers
        asked("callers", each, given.seconds / 2)  # the first calls settle the caches
        for _ in range(rounds):
            ready = bare.rate(given.seconds)
            engine = alone(side, items, callers, given.seconds)
            rate = asked("callers", each, given.seconds).images
            half = asked("rate", LOAD * rate / items, 2 * given.seconds)
            found.append(Round(ready, engine, rate, half))
        return told(worker), found


def told(worker: Served) -> str:
    """The numerics of what it serves."""
    with tectum.Client(worker.address) as client:
        numerics = client.get_model().numerics
    return f"{numerics.precision}, {numerics.engine}"


def measure(shape: Shape, given: argparse.Namespace) -> Found:
    """All starts of a shape."""
    with tempfile.TemporaryDirectory() as folder:
        repository = publish(shape, Path(folder))
        located, _ = Repository(repository).locate(NAME)
        predictor = Predictor(read_bundle(located, NAME), given.device, Numerics("bfloat16"))
        batches = (given.batch,) if given.batch else BATCHES
        rates = {batch: Bare(predictor, batch).rate(given.seconds / 2) for batch in batches}
        batch = best_batch(rates)
        bare, starts, numerics = Bare(predictor, batch), list[list[Round]](), ""
        for _ in range(given.starts):
            numerics, rounds = start(repository, shape, bare, batch, given.rounds, given)
            starts.append(rounds)
        return Found(shape, batch, arithmetic(shape.trunk), numerics, starts)


def over(starts: Sequence[Sequence[Round]], of: Callable[[Round], float]) -> Estimate:
    """A number over starts, each the mean of its rounds."""
    return estimate([statistics.mean(map(of, rounds)) for rounds in starts])


def table(found: Sequence[Found], peak: float | None) -> str:
    """The report's body: a row and a verdict for each shape."""
    lines = [
        "| shape, batch | bare graph, images/s | engine alone ÷ bare | worker ÷ bare "
        f"| gate ≥ {GATE} | worker, images/s | MFU bare | MFU worker | p50, p99 of a call at "
        f"{LOAD:.0%} load, ms | not answered |",
        "| --- |" + " --- |" * 9,
    ]
    for one in found:
        share = over(one.starts, lambda r: r.worker / r.bare)
        rates = [over(one.starts, of).value for of in (lambda r: r.bare, lambda r: r.worker)]
        mfu = [
            "not known" if peak is None else f"{rate * one.flops / 1e12 / peak:.1%}"
            for rate in rates
        ]
        took = [took for rounds in one.starts for r in rounds for took in r.half.took_ms]
        lost = sum(r.half.lost for rounds in one.starts for r in rounds)
        lines.append(
            f"| {one.shape.name}, {one.batch} | {rates[0]:.0f} | "
            f"{over(one.starts, lambda r: r.engine / r.bare).told(3)} | {share.told(3)} | "
            f"{share.at_least(GATE)} | {rates[1]:.0f} | {mfu[0]} | {mfu[1]} | "
            f"{percentile(took, 50):.1f}, {percentile(took, 99):.1f} | "
            f"{lost} of {lost + len(took)} |"
        )
    lines += ["", *(f"- {one.shape.name}: {one.numerics}." for one in found)]
    return "\n".join(lines) + "\n"


def report(found: Sequence[Found], peak: float | None, given: argparse.Namespace) -> str:
    """The whole file."""
    promised = "not known" if peak is None else f"{peak:.0f} TFLOP/s in bfloat16"
    return (
        f"{heading('Serving on a GPU against its bare forward')}\n"
        f"Raw pictures, in calls of a batch's size but at most {MOST_ITEMS}; {AHEAD} batches' "
        f"worth asked for at once by {given.askers} processes; {given.fronts} fronts, one engine. "
        f"Starts: {given.starts}, rounds of each: {given.rounds}, legs interleaved. A ratio is the "
        "mean over starts of the mean over a start's rounds, with the 95 % interval of Student's t "
        "over starts; undecided: the gate lies within it. Peak by the data sheet: "
        f"{promised}.\n\n{table(found, peak)}"
    )


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked for.

    Raises:
        SystemExit: there is no such device.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", type=int, action="append", help="number, from 0; all")
    parser.add_argument("--batch", type=int, help="in place of the one that suits the bare forward")
    parser.add_argument("--starts", type=int, default=3, help="of fresh engines and workers")
    parser.add_argument("--rounds", type=int, default=2, help="of each start")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each leg")
    parser.add_argument("--fronts", type=int, default=4)
    parser.add_argument("--askers", type=int, default=4, help="processes that ask")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    if given.device != "cpu" and not torch.cuda.is_available():
        parser.error(
            "there is no CUDA device, so nothing was measured; --device cpu --shape 0 --batch 2 "
            "--starts 1 --rounds 1 --seconds 2 --fronts 1 --askers 1 --out FILE tries it"
        )
    return given


def main() -> None:
    """Measure and report."""
    given = parse()
    name = "" if given.device == "cpu" else torch.cuda.get_device_name()
    found: list[Found] = []
    for number in given.shape if given.shape is not None else range(len(SHAPES)):
        found.append(measure(SHAPES[number], given))
        given.out.write_text(report(found, PEAK_TFLOPS.get(name), given), encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
