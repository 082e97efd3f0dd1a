"""How much of the bare forward pass a worker gives to its callers.

A ViT-B/32-shaped bundle with random weights; the bare forward (this process) and the
worker (its own processes, the same cores) take turns within one run, so that both meet the
same machine. Prints a table and writes benchmarks/results/serving.md.

    python benchmarks/serving.py [--rounds 3] [--seconds 12]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import tectum
from machine import heading
from tectum_core.architecture import (
    JointConfig,
    ModelConfig,
    TextConfig,
    TransformerConfig,
    VisionConfig,
)
from tectum_core.bundle import Repository, read_bundle
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.tokenizer import Tokenizer
from tectum_core.untrained import write_untrained

NAME, SIDE, CALLERS = "vit-b-32", 224, 16
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass
class Round:
    """What one turn of each gave."""

    bare: dict[int, float]
    """Images a second by batch size."""
    served: float
    """Images a second to all callers."""
    bare_one: list[float]
    """Seconds of bare forwards of one image."""
    served_one: list[float]
    """Seconds of one caller's calls, each made right after the bare forward of its place."""


def make_bundle(folder: Path) -> Path:
    """A repository with a random ViT-B/32 CLIP-shaped bundle."""
    tokenizer = Tokenizer.train(["open the drawer", "close the door"], 200)
    config = ModelConfig(
        vision=VisionConfig(
            transformer=TransformerConfig(
                width=768, depth=12, heads=12, hidden=3072, activation="quick_gelu"
            ),
            image_size=SIDE,
            patch_size=32,
            class_token=True,
            input_norm=True,
            patch_bias=False,
            pooling="class",
        ),
        text=TextConfig(
            transformer=TransformerConfig(width=64, depth=1, heads=2, hidden=128),
            vocabulary_size=tokenizer.vocabulary_size,
            max_tokens=16,
        ),
        joint=JointConfig(width=512),
    )
    bundle = folder / "bundle"
    write_untrained(bundle, config, ImagePreprocessing(size=SIDE), tokenizer)
    repository = folder / "repository"
    Repository(repository).publish(bundle, NAME)
    return repository


def forward(predictor: Predictor, pixels: torch.Tensor) -> None:
    """The trunk and projection on a ready tensor [B, 3, SIDE, SIDE], nothing around it."""
    joint = predictor.model.joint
    assert joint is not None
    with torch.inference_mode():
        joint.embed_image(predictor.model.vision(pixels).pooled)


def bare_throughput(predictor: Predictor, seconds: float) -> dict[int, float]:
    """Images a second by batch size."""
    found = {}
    for size in BATCHES:
        pixels = torch.randn(size, 3, SIDE, SIDE)
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds / len(BATCHES):
            forward(predictor, pixels)
            done += size
        found[size] = done / (time.perf_counter() - started)
    return found


def picture() -> NDArray[np.uint8]:
    """A raw picture [SIDE, SIDE, 3]."""
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


async def closed_loop(port: int, callers: int, seconds: float) -> float:
    """Images a second of so many callers of one raw picture each."""
    sent, done = picture(), 0
    async with tectum.AsyncClient(f"127.0.0.1:{port}", timeout=60.0) as client:
        await client.embed_images([sent])
        started = time.perf_counter()

        async def call() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                await client.embed_images([sent])
                done += 1

        await asyncio.gather(*(call() for _ in range(callers)))
        return done / (time.perf_counter() - started)


def turn_about(predictor: Predictor, port: int, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of bare forwards of one image and of one caller's calls, one after the other.

    A machine whose pace drifts by tenths then drifts for both.
    """
    sent, pixels = picture(), torch.randn(1, 3, SIDE, SIDE)
    bare, served = [], []
    with tectum.Client(f"127.0.0.1:{port}", timeout=60.0) as client:
        client.embed_images([sent])
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            began = time.perf_counter()
            forward(predictor, pixels)
            middle = time.perf_counter()
            client.embed_images([sent])
            bare.append(middle - began)
            served.append(time.perf_counter() - middle)
    return bare, served


@contextmanager
def worker(repository: Path, port: int, metrics_port: int) -> Iterator[None]:
    """`tectum serve`, ready."""
    command = [sys.executable, "-m", "tectum_cli", "serve", "--repository", str(repository)]
    command += ["--model", NAME, "--port", str(port), "--metrics-port", str(metrics_port)]
    process = subprocess.Popen([*command, "--log-level", "warning"])
    try:
        with tectum.Client(f"127.0.0.1:{port}") as client:
            client.wait_until_ready(180.0)
        yield
    finally:
        process.terminate()
        process.wait(60)


def mean_batch(metrics_port: int) -> tuple[float, float]:
    """Batches and items so far, from the worker's own metric."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics").read().decode()
    labels = r'\{[^}]*op="embed_images"[^}]*\}'
    items = sum(map(float, re.findall(rf"tectum_batch_size_sum{labels} (\S+)", text)))
    count = sum(map(float, re.findall(rf"tectum_batch_size_count{labels} (\S+)", text)))
    return count, items


def free_port() -> int:
    """A port nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each leg")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/serving.md")
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as folder:
        repository = make_bundle(Path(folder))
        located, _ = Repository(repository).locate(NAME)
        predictor = Predictor(read_bundle(located, NAME))
        port, metrics_port = free_port(), free_port()
        rounds = []
        with worker(repository, port, metrics_port):
            asyncio.run(closed_loop(port, CALLERS, 3.0))  # the first calls settle the caches
            before = mean_batch(metrics_port)
            for _ in range(given.rounds):
                bare = bare_throughput(predictor, given.seconds)
                served = asyncio.run(closed_loop(port, CALLERS, given.seconds))
                rounds.append(Round(bare, served, *turn_about(predictor, port, given.seconds)))
            after = mean_batch(metrics_port)
    report = heading("Serving against the bare forward") + "\n" + table(rounds, before, after)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(report)
    print(report)


def table(rounds: list[Round], before: tuple[float, float], after: tuple[float, float]) -> str:
    """The report's body."""
    best = [max(one.bare.values()) for one in rounds]
    ratio = statistics.median(one.served / top for one, top in zip(rounds, best, strict=True))
    bare_one = statistics.median(took for one in rounds for took in one.bare_one)
    served_one = statistics.median(took for one in rounds for took in one.served_one)
    extra = (served_one - bare_one) * 1000
    size = (after[1] - before[1]) / max(1.0, after[0] - before[0])
    lines = [
        "ViT-B/32 shape, float32, eager, raw 224-pixel pictures; bare = trunk and projection on "
        "ready tensors. Legs interleaved; single calls and bare forwards one about. The ratio is "
        "the median over rounds, the rest over all calls.\n",
        "| | found | gate | |",
        "| --- | --- | --- | --- |",
        f"| {CALLERS} callers: images/s ÷ best bare batch | {ratio:.3f} | ≥ 0.90 | "
        f"{'PASS' if ratio >= 0.90 else 'FAIL'} |",
        f"| one caller: median beyond the bare forward | {extra:.1f} ms | ≤ 5 ms | "
        f"{'PASS' if extra <= 5 else 'FAIL'} |",
        f"| mean batch, from the metric, both legs | {size:.1f} | > 1 | "
        f"{'PASS' if size > 1 else 'FAIL'} |",
        "",
        "| round | " + " | ".join(f"bare {b}" for b in BATCHES) + " | 16 callers | bare 1, ms | "
        "one caller, ms |",
        "| --- |" + " --- |" * (len(BATCHES) + 3),
    ]
    for number, one in enumerate(rounds, start=1):
        cells = " | ".join(f"{one.bare[size]:.1f}" for size in BATCHES)
        lines.append(
            f"| {number} | {cells} | {one.served:.1f} | {median_ms(one.bare_one)} | "
            f"{median_ms(one.served_one)} |"
        )
    return "\n".join(lines) + "\n"


def median_ms(seconds: list[float]) -> str:
    """Their median in milliseconds, to print."""
    return f"{statistics.median(seconds) * 1000:.1f}"


if __name__ == "__main__":
    main()
