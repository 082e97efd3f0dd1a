"""What `precision` brings on this host: how fast each way of computing is, and how close.

A ViT-B/32-shaped bundle with random weights. Each way takes turns with float32, eager, on the same
raw pictures, one at a time and several; how close it comes is the least cosine of golden outputs.
What `auto` chooses is asked of the worker's own code, with an empty cache. Then a worker is begun
with `auto` twice, the second time with what the first has left in the cache. Prints a table and
writes benchmarks/results/precision.md.

    python benchmarks/precision.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from machine import heading
from served import served
from serving_bare import NAME, SIDE, make_bundle
from tectum_core.bundle import Repository, read_bundle
from tectum_core.golden import GoldenMismatch, check_golden
from tectum_core.numerics import REFERENCE, Numerics
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.models.choosing import (
    CANDIDATES,
    choose,
    keep_compiled,
    kind_of_host,
)

BATCHES = (1, 8, 32)
FASTER, CLOSE, STARTS, HOPELESS = 2.0, 0.999, 20.0, 0.7
"""The gates; and what is slower than the last in its first turn has no other."""
PICTURES = np.random.default_rng(0).integers(0, 256, (max(BATCHES), SIDE, SIDE, 3), np.uint8)


@dataclass
class Way:
    """One way of computing."""

    numerics: Numerics
    speedups: dict[int, float]
    """Over float32, eager, by batch size; medians over turns."""
    cosine: float = 0.0
    why: str = ""
    """Why it does not run, or is not close enough. Empty: it does, and is."""


def timed(predictor: Predictor, size: int) -> float:
    """Seconds of one batch."""
    began = time.perf_counter()
    predictor.embed_images(list(PICTURES[:size]), "joint")
    return time.perf_counter() - began


def measured(reference: Predictor, numerics: Numerics, rounds: int) -> Way:
    """One way beside the reference."""
    try:
        predictor = Predictor(reference.bundle, "cpu", numerics)
        cosine, why = check_golden(predictor).min_cosine, ""
    except GoldenMismatch as error:
        cosine, why = 0.0, str(error).partition(";")[0]
    except Exception as error:  # no compiler, no torchao: whatever it is, it is told
        return Way(numerics, {}, why=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    speedups = dict[int, float]()
    for size in BATCHES:
        for one in (predictor, reference):
            timed(one, size)
        turns = [timed(reference, size) / timed(predictor, size)]
        if turns[0] > HOPELESS:
            turns += [timed(reference, size) / timed(predictor, size) for _ in range(rounds - 1)]
        speedups[size] = statistics.median(turns)
    return Way(numerics, speedups, cosine, why)


def starts(repository: Path, log: Path) -> list[float]:
    """Seconds until a worker with `auto` serves: with an empty cache, and with a full one."""
    found = []
    for _ in range(2):
        began = time.perf_counter()
        with served(repository, NAME, log=log, precision="auto"):
            found.append(time.perf_counter() - began)
    return found


def report(ways: Sequence[Way], chosen: Numerics, begun: Sequence[float], host: str) -> str:
    """A table and verdicts."""
    head = " | ".join(f"{size} at a time" for size in BATCHES)
    lines = [
        f"{host}. Times faster than float32, eager.",
        "",
        f"| computed in | {head} | least cosine | |",
        "| --- |" + " --- |" * (len(BATCHES) + 2),
    ]
    for way in ways:
        cells = " | ".join(f"{way.speedups[size]:.2f}" if way.speedups else "–" for size in BATCHES)
        mark = "chosen by auto" if way.numerics == chosen else way.why
        lines.append(f"| {way.numerics} | {cells} | {way.cosine:.6f} | {mark} |")
    (best,) = [way for way in ways if way.numerics == chosen]
    gain = statistics.geometric_mean(best.speedups.values())
    cold, warm = begun
    lines += [
        "",
        f"A worker with `auto` serves after {cold:.1f} s with an empty cache, after {warm:.1f} s "
        "with a full one.",
        "",
        f"- auto is ≥ {FASTER} times as fast as float32, eager, over these batches ({gain:.2f}): "
        f"{'PASS' if gain >= FASTER else 'FAIL'}",
        f"- its cosine is ≥ {CLOSE}: {'PASS' if best.cosine >= CLOSE else 'FAIL'}",
        f"- it serves within {STARTS:g} s of a start with a full cache: "
        f"{'PASS' if warm <= STARTS else 'FAIL'}",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way and batch size")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/precision.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        keep_compiled()
        repository = make_bundle(Path(folder))
        located, _ = Repository(repository).locate(NAME)
        bundle = read_bundle(located, NAME)
        reference = Predictor(bundle)
        ways = [
            measured(reference, numerics, given.rounds)
            for numerics in track([*CANDIDATES, Numerics("int8")], "ways", transient=True)
            if numerics != REFERENCE
        ]
        ways.insert(
            0, Way(REFERENCE, dict.fromkeys(BATCHES, 1.0), check_golden(reference).min_cosine)
        )
        chosen = choose(bundle, "cpu").order()[0]
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "empty"))
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
        begun = starts(repository, Path(folder, "log"))
    text = heading("What precision brings") + "\n"
    text += report(ways, chosen, begun, kind_of_host("cpu"))
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
