"""How much of the bare forward pass a worker gives to its callers.

A ViT-B/32-shaped bundle with random weights; the bare forward (this process) and the
worker (its own processes, the same cores) take turns within one run, so that both meet the
same machine. Which batch the bare forward likes best is found first, in a sweep of its own: the
best of several noisy numbers of one leg would be better than any batch is. Prints a table and
writes benchmarks/results/serving.md.

    make bench
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
LEAST_ANSWERS = 5
"""So many to each caller, in a leg however slow."""


@dataclass
class Round:
    """What one turn of each gave."""

    bare: float
    """Images a second in the best batch."""
    served: float
    """Images a second to all callers."""
    batch: float
    """Mean size of the batches that served them."""
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


def throughput(predictor: Predictor, size: int, seconds: float) -> float:
    """Images a second of the bare forward in batches of one size."""
    pixels = torch.randn(size, 3, SIDE, SIDE)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        forward(predictor, pixels)
        done += size
    return done / (time.perf_counter() - started)


def sweep(predictor: Predictor, rounds: int, seconds: float) -> dict[int, float]:
    """Images a second by batch size, medians over turns of all sizes."""
    turns = [
        {size: throughput(predictor, size, seconds) for size in BATCHES} for _ in range(rounds)
    ]
    return {size: statistics.median(turn[size] for turn in turns) for size in BATCHES}


def picture() -> NDArray[np.uint8]:
    """A raw picture [SIDE, SIDE, 3]."""
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


async def closed_loop(port: int, callers: int, seconds: float) -> float:
    """Images a second of so many callers of one raw picture each, for so long and some batches.

    Neither the start nor the last calls, which fewer and fewer share, count; and since answers come
    a batch at a time, they are counted from the end of one such burst to the end of another.
    """
    sent, answered = picture(), list[float]()
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


def batches(metrics_port: int) -> tuple[float, float]:
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
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each leg")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/serving.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = make_bundle(Path(folder))
        located, _ = Repository(repository).locate(NAME)
        predictor = Predictor(read_bundle(located, NAME))
        port, metrics_port = free_port(), free_port()
        rounds = []
        with worker(repository, port, metrics_port):
            sizes = sweep(predictor, 5, given.seconds / 3)
            best = max(sizes, key=sizes.__getitem__)
            asyncio.run(closed_loop(port, CALLERS, 5.0))  # the first calls settle the caches
            for _ in range(given.rounds):
                bare = throughput(predictor, best, given.seconds)
                before = batches(metrics_port)
                served = asyncio.run(closed_loop(port, CALLERS, given.seconds))
                after = batches(metrics_port)
                batch = (after[1] - before[1]) / (after[0] - before[0])
                singles = turn_about(predictor, port, given.seconds)
                rounds.append(Round(bare, served, batch, *singles))
    report = heading("Serving against the bare forward") + "\n" + table(sizes, best, rounds)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(report)
    print(report)


def table(sizes: dict[int, float], best: int, rounds: list[Round]) -> str:
    """The report's body."""
    ratio, least, most = share(rounds)
    pairs = [pair for one in rounds for pair in zip(one.bare_one, one.served_one, strict=True)]
    extra = statistics.median(served - bare for bare, served in pairs) * 1000
    batch = statistics.mean(one.batch for one in rounds)
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    lines = [
        f"ViT-B/32 shape, float32, eager, raw {SIDE}-pixel pictures; bare = trunk and projection "
        f"on ready tensors; OMP_WAIT_POLICY {policy}. Legs interleaved; single calls and bare "
        "forwards of one picture one about. The ratio is that of the means over rounds, its "
        "95 % interval that of rounds drawn anew; the extra time is the median of a call less "
        f"the bare forward right before it, {len(pairs)} times.\n",
        "| | found | gate | |",
        "| --- | --- | --- | --- |",
        f"| {CALLERS} callers: images/s ÷ bare forward in batches of {best} | {ratio:.3f} "
        f"({least:.3f} to {most:.3f}) | ≥ 0.90 "
        f"| {'PASS' if ratio >= 0.90 else 'FAIL'} |",
        f"| one caller: median beyond the bare forward | {extra:.1f} ms | ≤ 5 ms | "
        f"{'PASS' if extra <= 5 else 'FAIL'} |",
        f"| {CALLERS} callers: mean batch, from the metric | {batch:.1f} | > 1 | "
        f"{'PASS' if batch > 1 else 'FAIL'} |",
        "",
        "Bare images/s by batch: " + ", ".join(f"{b}: {sizes[b]:.1f}" for b in BATCHES) + ".\n",
        f"| round | bare {best}, images/s | {CALLERS} callers, images/s | ratio | mean batch | "
        "bare 1, ms | one caller, ms |",
        "| --- |" + " --- |" * 6,
    ]
    for number, one in enumerate(rounds, start=1):
        lines.append(
            f"| {number} | {one.bare:.1f} | {one.served:.1f} | {one.served / one.bare:.3f} | "
            f"{one.batch:.1f} | {median_ms(one.bare_one)} | {median_ms(one.served_one)} |"
        )
    return "\n".join(lines) + "\n"


def share(rounds: list[Round]) -> tuple[float, float, float]:
    """Of the bare forward's mean rate, the callers'; and its 95 % interval, by bootstrap."""
    rates = np.array([[one.served, one.bare] for one in rounds])
    drawn = np.random.default_rng(0).integers(0, len(rounds), (10_000, len(rounds)))
    served, bare = rates[drawn].mean(axis=1).T
    least, most = np.quantile(served / bare, [0.025, 0.975])
    return float(rates[:, 0].mean() / rates[:, 1].mean()), float(least), float(most)


def median_ms(seconds: list[float]) -> str:
    """Their median in milliseconds, to print."""
    return f"{statistics.median(seconds) * 1000:.1f}"


if __name__ == "__main__":
    main()
