"""What reading a JPEG at a half or a quarter of its size would change, and save.

libjpeg can leave out the finest of a block's frequencies and so give a smaller picture for less
work. Each picture is read whole and scaled, both are brought to the model's size by the one
preprocessing, and the levels that come out are compared. Prints a table and writes
benchmarks/results/scaled_jpeg.md.

    python benchmarks/scaled_jpeg.py
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from machine import heading
from tectum_cli.load.pictures import Picture, drawn, encoded
from tectum_core.preprocess import ImagePreprocessing, resize

SIDE, RUNS = 224, 15
SIZES = {(640, 480): (2,), (1280, 720): (2,), (1920, 1080): (2, 4)}
"""Width and height, and the scales at which each still has more pixels than the model reads."""
ALLOWED = 0.001
"""Share of pixels that may lie more than one level apart (preprocessing identity)."""


def read(file: bytes, scale: int) -> NDArray[np.uint8]:
    """A JPEG's pixels, each side divided."""
    with Image.open(io.BytesIO(file)) as picture:
        if scale > 1:
            picture.draft("RGB", (picture.width // scale, picture.height // scale))
        return np.array(picture.convert("RGB"))


def apart(files: list[bytes], scale: int, spec: ImagePreprocessing) -> NDArray[np.int64]:
    """Levels between what the model would read of a picture read whole and read scaled."""
    found = []
    for file in files:
        whole, scaled = (
            resize(torch.from_numpy(read(file, one))[None], spec).long() for one in (1, scale)
        )
        found.append((whole - scaled).abs().flatten().numpy())
    return np.concatenate(found)


def milliseconds(file: bytes, scale: int) -> float:
    """Of one reading, at best."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        read(file, scale)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def files(width: int, height: int, kind: str) -> list[bytes]:
    """Pictures of a kind: smooth like photographs, or nothing but noise."""
    dice = np.random.default_rng(0)
    pixels: list[NDArray[np.uint8]] = (
        drawn(width, height, 3, seed=0)
        if kind == "smooth"
        else [dice.integers(0, 256, (height, width, 3), np.uint8) for _ in range(3)]
    )
    made: list[Picture] = [encoded(one, "jpeg") for one in pixels]
    return [one for one in made if isinstance(one, bytes)]


def table() -> str:
    """A row for each size, scale, kind of picture and resampling."""
    lines = [
        "| picture | read at | resampled | pictures | share more than a level apart | most levels "
        "| whole ms | scaled ms | within |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (width, height), scales in SIZES.items():
        for kind in ("smooth", "noise"):
            some = files(width, height, kind)
            for scale in scales:
                took = [milliseconds(some[0], one) for one in (1, scale)]
                for interpolation in ("bilinear", "bicubic"):
                    spec = ImagePreprocessing(
                        size=SIDE,
                        resize_mode="stretch",
                        interpolation=interpolation,
                    )
                    levels = apart(some, scale, spec)
                    share = float((levels > 1).mean())
                    lines.append(
                        f"| {width}×{height} | 1/{scale} | {interpolation} | {kind} | {share:.4f} "
                        f"| {levels.max()} | {took[0]:.1f} | {took[1]:.1f} "
                        f"| {'yes' if share <= ALLOWED else 'no'} |"
                    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/scaled_jpeg.md"
    )
    given = parser.parse_args()
    said = (
        f"\nAllowed: {ALLOWED:.1%} of pixels more than one level apart, at {SIDE}×{SIDE}. "
        "JPEGs are of quality 90.\n\n"
    )
    text = heading("JPEGs read at a part of their size") + said + table()
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
