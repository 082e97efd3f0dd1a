"""How long from nothing to an answer: `tectum up`, and the first EmbedImages that succeeds.

Starts the product with the embedded model again and again, each time from no process at all,
and asks as a client that does not know when it will be there. Prints a table and writes
benchmarks/results/start.md.

    python benchmarks/start.py [--starts 5]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tectum
from machine import heading
from served import free_port

PATIENCE, PAUSE = 180.0, 0.01
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@dataclass
class Start:
    """Seconds since the process was begun."""

    answered: float
    """The first answer to EmbedImages."""
    second: float
    """How long the answer after it took."""
    ended: float
    """From Ctrl-C to the end of the last process."""


def start() -> Start:
    """Begin, ask until there is an answer, ask once more, and end."""
    port, gateway_port, metrics_port = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "tectum_cli", "up", "--port", str(port)]
    command += ["--gateway-port", str(gateway_port), "--metrics-port", str(metrics_port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        first = first_answer(port, process)
        answered = time.perf_counter()
        second = first_answer(port, process)
    finally:
        ending = time.perf_counter()
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE)
    if code != 0:
        raise SystemExit(f"`tectum up` ended with code {code}")
    return Start(first - began, second - answered, time.perf_counter() - ending)


def first_answer(port: int, process: subprocess.Popen[bytes]) -> float:
    """When a client got its first answer; it opens a new connection for every attempt."""
    while process.poll() is None:
        try:
            # A channel that was refused waits before it tries again; a new one does not.
            with tectum.Client(f"127.0.0.1:{port}", timeout=PATIENCE, retries=0) as client:
                client.embed_images([PICTURE])
                return time.perf_counter()
        except tectum.Unavailable:
            time.sleep(PAUSE)
    raise SystemExit(f"`tectum up` ended with code {process.returncode}")


def table(starts: list[Start]) -> str:
    """The report's body."""
    lines = [
        "`tectum up` with the embedded model: worker (supervisor, front, engine) and gateway; the "
        "golden check and the warm-up are part of a start.\n",
        "| seconds | median | fastest | slowest |",
        "| --- | --- | --- | --- |",
    ]
    rows = {
        "from the start to the first EmbedImages answer": [one.answered for one in starts],
        "the answer after it, connecting included": [one.second for one in starts],
        "from Ctrl-C to the end": [one.ended for one in starts],
    }
    for name, found in rows.items():
        cells = (statistics.median(found), min(found), max(found))
        lines.append(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/start.md")
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    start()  # fills the page cache, which a machine that has just been switched on has not
    starts = [start() for _ in range(given.starts)]
    report = heading("From nothing to the first answer") + "\n" + table(starts)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(report)
    print(report)


if __name__ == "__main__":
    main()
