"""Tectum beside its peers: the same tower, the same pictures, the same machine, in one run.

A ViT-B/32-shaped tower with random weights behind Triton (through pytriton, gRPC), mosec, LitServe,
Ray Serve and Tectum, and one of the same shape behind infinity, which serves checkpoints only. All
run at once and take turns, those not asked being frozen (`peers_serving`); each is asked as its own
clients do (`peers_asking`): in a closed loop, by Poisson at shares of what it can do itself, and at
shares of what the slowest can do, which all then get alike. Calls give up after half a second. Two
tables: each as it ships, in float32, and each with the tower in what `precision: auto` chooses here
(infinity in that precision, with its own `--compile`). Before anything is timed every answer is
compared with the tower's own. Writes benchmarks/results/peers.md.

    make peers
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from machine import heading
from peers_asking import WAYS, Caller, asking
from peers_serving import Kind, Running, all_running
from served import free_port
from serving_bare import NAME, SIDE, make_bundle
from tectum import Priority
from tectum_cli.load.arrivals import poisson
from tectum_cli.load.driving import Outcome, Result, closed_loop, open_loop
from tectum_cli.load.pictures import drawn
from tectum_cli.load.report import percentile
from tectum_cli.load.traffic import Question
from tectum_core.bundle import Repository, read_bundle
from tectum_core.image import decode
from tectum_core.numerics import REFERENCE, Numerics
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.models.choosing import choose

HERE = Path(__file__).parent
CALLERS, SHARES = (1, 16, 64), (0.5, 0.8, 1.0, 2.0)
IN_TIME, MOST_OPEN, PICTURES = 0.5, 1024, 16
PATIENCE, ALIKE = 600.0, 0.999
"""Seconds until all serve; the least cosine to the tower's own vector."""
TITLES = {
    "compiled": "Each with the tower in what `auto` chooses here",
    "shipped": "Each as it ships",
}
ASKED = Question("embed_images", Priority.INTERACTIVE, None)
HURRIED = Question("embed_images", Priority.INTERACTIVE, IN_TIME)


def kinds(numerics: Numerics, threads: int) -> list[Kind]:
    """All of them, with the tower in these numerics."""
    tower = {
        "TOWER_REPOSITORY": "{repository}",
        "TOWER_NAME": NAME,
        "TOWER_NUMERICS": str(numerics),
        "TOWER_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(HERE.parent / "core"),
    }
    ours = "float32" if numerics == REFERENCE else "auto"
    serve = ("-m", "tectum_cli", "serve", "--repository", "{repository}", "--model", NAME)
    infinity = (
        *("v2", "--host", "127.0.0.1", "--port", "{port}", "--engine", "torch"),
        *("--device", "cpu", "--dtype", numerics.precision, "--no-bettertransformer"),
        *("--model-id", "{checkpoint}", "--served-model-name", "tower"),
        "--compile" if numerics.compiled else "--no-compile",
    )
    offline = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(threads),
    }
    return [
        Kind(
            "tectum",
            "",
            ("python", *serve, "--port", "{port}", "--metrics-port", "{other}"),
            {"TECTUM_PRECISION": ours, "TECTUM_LOG_LEVEL": "warning"},
        ),
        Kind(
            "triton",
            ".venv-triton",
            ("python", str(HERE / "peer/triton_server.py"), "{port}"),
            {**tower, "LD_LIBRARY_PATH": "{library}"},
        ),
        Kind(
            "mosec",
            ".venv-mosec",
            ("python", str(HERE / "peer/mosec_server.py")),
            {**tower, "MOSEC_PORT": "{port}"},
        ),
        Kind(
            "litserve",
            ".venv-litserve",
            ("python", str(HERE / "peer/litserve_server.py"), "{port}"),
            tower,
        ),
        Kind(
            "ray",
            ".venv-ray",
            ("python", str(HERE / "peer/ray_server.py"), "{port}"),
            {**tower, "RAY_USAGE_STATS_ENABLED": "0"},
        ),
        Kind("infinity", ".venv-infinity", ("infinity_emb", *infinity), offline),
    ]


@dataclass
class Leg:
    """Calls of one kind to one server, of all rounds."""

    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Pictures answered a second."""
        return sum(one.answer.outcome is Outcome.ANSWERED for one in self.results) / self.seconds

    @property
    def goodput(self) -> float:
        """Pictures answered in time a second."""
        return sum(one.took <= IN_TIME for one in self._answered) / self.seconds

    def milliseconds(self, percent: float) -> float:
        """A percentile of all calls; what has no answer took for ever."""
        lost = [math.inf] * (len(self.results) - len(self._answered))
        return 1000 * percentile([*(one.took for one in self._answered), *lost], percent)

    @property
    def _answered(self) -> list[Result]:
        return [one for one in self.results if one.answer.outcome is Outcome.ANSWERED]


Legs = dict[tuple[str, float, str], Leg]
"""By what loads it (`callers`, `own`, `common`), how much, and who is asked."""


def files(folder: Path) -> list[bytes]:
    """JPEG files of the tower's size, written there, too."""
    for number, pixels in enumerate(drawn(SIDE, SIDE, PICTURES, seed=0)):
        memory = BytesIO()
        Image.fromarray(pixels).save(memory, "JPEG", quality=90)
        (folder / f"{number:02}.jpg").write_bytes(memory.getvalue())
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def bodies(folder: Path, name: str, pictures: Sequence[bytes]) -> list[bytes]:
    """What one is asked with."""
    if name == "triton":
        program = HERE.parent / ".venv-triton/bin/python"
        subprocess.run([program, HERE / "peer/triton_requests.py", folder], check=True)
        return [path.read_bytes() for path in sorted(folder.glob("*.request"))]
    return [WAYS[name].body(picture) for picture in pictures]


class Run:
    """One table's worth of turns.

    Args:
        servers: all of them, frozen.
        asked: what each is asked with.
        seconds: of each leg.
    """

    def __init__(
        self, servers: Sequence[Running], asked: Mapping[str, list[bytes]], seconds: float
    ) -> None:
        self._servers = servers
        self._asked = asked
        self._seconds = seconds
        self._dice = random.Random(0)
        self.legs: Legs = defaultdict(Leg)

    async def check(self, wanted: Sequence[NDArray[np.float32]]) -> dict[str, float]:
        """Wait until each serves; the least cosine of its vectors to these.

        Raises:
            RuntimeError: one does not serve, or other vectors.
        """
        found = {}
        for server in self._servers:
            name = server.kind.name
            server.thaw()
            async with asking(WAYS[name], server.port, self._asked[name]) as ask:
                vectors = [await _first(ask, name)]
                vectors += [await ask.vector(number) for number in range(1, len(wanted))]
            server.freeze()
            cosines = [float(a @ b / np.linalg.norm(a)) for a, b in _pairs(vectors, wanted)]
            found[name] = min(cosines)
            if name != "infinity" and found[name] < ALIKE:
                raise RuntimeError(f"{name} serves other vectors: cosine {found[name]:.4f}")
        return found

    async def round(self, progress: Progress) -> None:
        """Every leg of every server, in turn."""
        bar = progress.add_task("legs", total=len(self._servers) * (len(CALLERS) + 8))
        for callers in CALLERS:
            for server in self._servers:
                await self._leg("callers", callers, server)
                progress.advance(bar)
        able = {
            server.kind.name: self.legs["callers", CALLERS[-1], server.kind.name].rate
            for server in self._servers
        }
        for load, rates in (("own", able), ("common", dict.fromkeys(able, min(able.values())))):
            for share in SHARES:
                for server in self._servers:
                    await self._leg(load, share, server, share * rates[server.kind.name])
                    progress.advance(bar)

    async def _leg(self, load: str, much: float, server: Running, rate: float = 0.0) -> None:
        name = server.kind.name
        leg = self.legs[load, much, name]
        server.thaw()
        async with asking(WAYS[name], server.port, self._asked[name]) as ask:
            await closed_loop(lambda: ASKED, ask, 4, self._seconds / 8)
            began = time.perf_counter()
            if load == "callers":
                leg.results += await closed_loop(lambda: ASKED, ask, int(much), self._seconds)
                leg.seconds += time.perf_counter() - began  # to the last answer, which counts
            else:
                arrivals = poisson(rate, self._seconds, self._dice)
                leg.results += await open_loop(arrivals, lambda: HURRIED, ask, MOST_OPEN)
                leg.seconds += self._seconds
        await asyncio.sleep(IN_TIME)  # what was given up may still be computed
        server.freeze()


async def _first(ask: Caller, name: str) -> NDArray[np.float32]:
    """The first vector, as soon as there is one."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            return await ask.vector(0)
        except OSError as error:
            if time.monotonic() > ends:
                raise RuntimeError(f"{name} does not serve: {error}") from error
            await asyncio.sleep(0.5)


def _pairs(
    found: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    for one, other in zip(found, wanted, strict=True):
        if one.shape == other.shape:
            yield one, other
        else:  # of another checkpoint
            yield one, np.zeros_like(one)


def table(title: str, legs: Legs, names: Sequence[str]) -> str:
    """One table, and what it says of Tectum."""
    head = [f"{callers} callers, images/s (p50, p99 ms)" for callers in CALLERS]
    head += [f"{share:.0%} of its own: in time/s (p50, p99)" for share in SHARES]
    head += [f"{share:.0%} of the slowest's: in time/s (p50, p99)" for share in SHARES]
    lines = [f"## {title}", "", f"| | {' | '.join(head)} |", "| --- |" + " --- |" * len(head)]
    for name in names:
        cells = [_cell(legs["callers", much, name], timely=False) for much in CALLERS]
        cells += [
            _cell(legs[load, much, name], timely=True)
            for load in ("own", "common")
            for much in SHARES
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    others = [name for name in names if name != "tectum"]
    best = {name: max(legs["callers", much, name].rate for much in CALLERS) for name in names}
    fastest = max(others, key=best.__getitem__)
    ratio = best["tectum"] / best[fastest]
    lines += [
        "",
        f"Most images a second, Tectum's ÷ the best peer's ({fastest}): {ratio:.2f}. "
        f"At least as many: {'PASS' if ratio >= 1 else 'FAIL'}.",
    ]
    slow = {key: leg.milliseconds(99) for key, leg in legs.items() if key[0] == "common"}
    good = {key: leg.goodput for key, leg in legs.items() if key[0] == "common"}
    for what, best_of, found in (("lowest p99", min, slow), ("highest goodput", max, good)):
        won = [
            share
            for share in SHARES
            if math.isfinite(own := found["common", share, "tectum"])  # else all may be lost alike
            and own == best_of(found["common", share, name] for name in names)
        ]
        told = ", ".join(f"{share:.0%}" for share in won) or "none"
        verdict = "PASS" if len(won) == len(SHARES) else "FAIL"
        lines.append(f"Tectum has the {what} at common loads of: {told}. {verdict}.")
    return "\n".join(lines) + "\n"


def _cell(leg: Leg, *, timely: bool) -> str:
    times = (leg.milliseconds(percent) for percent in (50, 99))
    told = ", ".join("none" if math.isinf(one) else f"{one:.0f}" for one in times)
    return f"{leg.goodput if timely else leg.rate:.1f} ({told})"


def measure(
    folder: Path, repository: Path, numerics: Numerics, given: argparse.Namespace
) -> tuple[Legs, dict[str, float]]:
    """One table's numbers, and how near each one's vectors come to the tower's own."""
    pictures = files(folder)
    located, _ = Repository(repository).locate(NAME)
    bundle = read_bundle(located, NAME)
    own = Predictor(bundle).embed_images([decode(p, max_pixels=2**24) for p in pictures], "joint")
    chosen = [kind for kind in kinds(numerics, given.threads) if kind.name in given.only]
    words = {
        "repository": str(repository),
        "checkpoint": str(folder.parent / "checkpoint"),
        "library": str(Path(sys.base_prefix, "lib")),
        "other": str(free_port()),
    }
    ports = {kind: free_port() for kind in chosen}
    with all_running(ports, words, folder) as servers, Progress(transient=True) as progress:
        asked = {kind.name: bodies(folder, kind.name, pictures) for kind in chosen}
        run = Run(servers, asked, given.seconds)
        alike = asyncio.run(run.check(list(own)))
        for _ in range(given.rounds):
            asyncio.run(run.round(progress))
    return run.legs, alike


def main() -> None:
    """Measure and report."""
    names = [kind.name for kind in kinds(REFERENCE, 1)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each leg")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="torch's, in each peer")
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--tables", nargs="+", default=list(TITLES), choices=list(TITLES))
    parser.add_argument("--width", type=int, default=768, help="the tower's")
    parser.add_argument("--out", type=Path, default=HERE / "results/peers.md")
    given = parser.parse_args()
    parts = [heading("Beside the peers")]
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        repository = make_bundle(top, given.width)
        if "infinity" in given.only:
            program = HERE.parent / ".venv-infinity/bin/python"
            script = HERE / "peer/infinity_checkpoint.py"
            subprocess.run([program, script, top / "checkpoint"], check=True)
        for which in given.tables:
            title, numerics = TITLES[which], REFERENCE
            if which == "compiled":
                located, _ = Repository(repository).locate(NAME)
                numerics = choose(read_bundle(located, NAME), "cpu").order()[0]
            folder = top / which
            folder.mkdir()
            legs, alike = measure(folder, repository, numerics, given)
            near = ", ".join(f"{name} {cosine:.6f}" for name, cosine in alike.items())
            parts += [
                table(f"{title} ({numerics})", legs, given.only),
                f"Least cosines to the tower's own: {near}.",
            ]
    text = "\n".join(parts) + "\n"
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
