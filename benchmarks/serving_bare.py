"""The bare forward pass, and bare decoding, in a process of its own, asked line by line.

A process's memory lies where it fell when the process began, which moves its forward pass by some
percent for as long as it lives. So the benchmark begins this process anew as often as the worker.

    python benchmarks/serving_bare.py REPOSITORY

reads "BATCH SECONDS" of the forward pass, or "decode SECONDS" of a photograph's JPEG on all cores,
and writes images a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import torch

from tectum_cli.load.pictures import drawn, encoded
from tectum_core.architecture import (
    JointConfig,
    ModelConfig,
    TextConfig,
    TransformerConfig,
    VisionConfig,
)
from tectum_core.bundle import Repository, read_bundle
from tectum_core.image import decode
from tectum_core.predictor import Predictor
from tectum_core.preprocess import ImagePreprocessing
from tectum_core.tokenizer import Tokenizer
from tectum_core.untrained import write_untrained

__all__ = ["NAME", "PHOTOGRAPH", "SIDE", "Bare", "bare", "make_bundle", "photograph"]

NAME, SIDE = "vit-b-32", 224
PHOTOGRAPH = (640, 480)
"""Width and height of a camera's pictures, which come as JPEG."""


@cache
def photograph() -> bytes:
    """A JPEG file of a picture that is like one."""
    (pixels,) = drawn(*PHOTOGRAPH, 1, seed=0)
    file = encoded(pixels, "jpeg")
    assert isinstance(file, bytes)
    return file


def make_bundle(folder: Path, width: int = 768) -> Path:
    """A repository with a random CLIP-shaped bundle: ViT-B/32's, or of another width."""
    tokenizer = Tokenizer.train(["open the drawer", "close the door"], 200)
    config = ModelConfig(
        vision=VisionConfig(
            transformer=TransformerConfig(
                width=width,
                depth=12,
                heads=width // 64,
                hidden=4 * width,
                activation="quick_gelu",
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


class Bare:
    """A bare forward that runs elsewhere."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests = requests
        self._answers = answers

    def throughput(self, size: int, seconds: float) -> float:
        """Images a second in batches of one size, for so long, but one batch at least."""
        return self._ask(f"{size} {seconds}")

    def decoding(self, seconds: float) -> float:
        """Photographs a second that all cores together decode, doing nothing else."""
        return self._ask(f"decode {seconds}")

    def one(self) -> float:
        """Seconds of one forward of one image."""
        return 1 / self.throughput(1, 0.0)

    def _ask(self, what: str) -> float:
        self._requests.write(what + "\n")
        self._requests.flush()
        return float(self._answers.readline())


@contextmanager
def bare(repository: Path) -> Iterator[Bare]:
    """A fresh process that has loaded the bundle."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(repository)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        asked = Bare(process.stdin, process.stdout)
        asked.one()
        yield asked
    finally:
        process.stdin.close()
        process.wait(60)


def forward(predictor: Predictor, pixels: torch.Tensor) -> None:
    """The trunk and projection on a ready tensor [B, 3, SIDE, SIDE], nothing around it."""
    joint = predictor.model.joint
    assert joint is not None
    with torch.inference_mode():
        joint.embed_image(predictor.model.vision(pixels).pooled)


@cache
def ready(size: int) -> torch.Tensor:
    """A tensor [size, 3, SIDE, SIDE], always the same."""
    return torch.randn(size, 3, SIDE, SIDE)


def throughput(predictor: Predictor, size: int, seconds: float) -> float:
    """Images a second of the bare forward in batches of one size; one batch at least."""
    pixels = ready(size)
    started, done = time.perf_counter(), 0
    while not done or time.perf_counter() - started < seconds:
        forward(predictor, pixels)
        done += size
    return done / (time.perf_counter() - started)


def decoding(seconds: float) -> float:
    """Photographs a second by the worker's own decoder, a thread on each core."""
    cores, file = len(os.sched_getaffinity(0)), photograph()
    started = time.perf_counter()

    def some() -> int:
        done = 0
        while not done or time.perf_counter() - started < seconds:
            decode(file, max_pixels=PHOTOGRAPH[0] * PHOTOGRAPH[1])
            done += 1
        return done

    with ThreadPoolExecutor(cores) as pool:
        done = sum(each.result() for each in [pool.submit(some) for _ in range(cores)])
    return done / (time.perf_counter() - started)


def main(repository: str) -> None:
    """Answer until nothing more is asked."""
    located, _ = Repository(repository).locate(NAME)
    predictor = Predictor(read_bundle(located, NAME))
    for line in sys.stdin:
        what, seconds = line.split()
        if what == "decode":
            rate = decoding(float(seconds))
        else:
            rate = throughput(predictor, int(what), float(seconds))
        print(rate, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
