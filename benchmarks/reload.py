"""Hot reload: new versions published one after the other under load, corrupt ones among them.

A worker watches its repository while three kinds of callers ask: some as fast as answers come, one
CONTROL call at a steady pace, and two live streams. Bundles differ in their weights, every one
from every other; every twentieth is corrupt, each in its way. After each publication the benchmark
waits until the worker serves it, or says that it was rejected. Every call that is not answered is a
failure, whatever it is told, and so is every answer by a version that was corrupt. Prints a table
and writes benchmarks/results/reload.md.

    python benchmarks/reload.py [--swaps 200]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.progress import track
from safetensors.torch import load_file, save_file

import tectum
from machine import heading
from served import Served, served
from small import NAME, PICTURE, write_small
from tectum_cli.load.report import percentile
from tectum_core.bundle import Repository
from trend import trend

CALLERS, CONTROL_HZ, STREAMS, STREAM_HZ = 4, 10.0, 2, 10.0
INTERACTIVE_S, CONTROL_S, LIFESPAN_S = 10.0, 2.0, 2.0
CORRUPT_EVERY, SETTLED, PATIENCE = 20, 20, 120.0
"""Every so manieth publication is corrupt; memory is looked at after so many; seconds for each."""
POOLED: Literal["pooled"] = "pooled"


# ---------------------------------------------------------------- bundles


def skewed(folder: Path) -> None:
    """Preprocessing that is not what the golden outputs were made with."""
    config = json.loads((folder / "config.json").read_text())
    config["images"]["mean"] = [mean + 0.1 for mean in config["images"]["mean"]]
    (folder / "config.json").write_text(json.dumps(config))


def truncated(folder: Path) -> None:
    """Half of the weights."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def incomplete(folder: Path) -> None:
    """A tensor is missing."""
    tensors = load_file(folder / "model.safetensors")
    del tensors[min(tensors)]
    save_file(tensors, folder / "model.safetensors")


def unknown(folder: Path) -> None:
    """A configuration that no reader knows."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "wings": 2}))


def moved(folder: Path) -> None:
    """Golden outputs of other weights."""
    golden = load_file(folder / "golden.safetensors")
    golden["output/pooled"] = golden["output/pooled"].flip(-1)
    save_file(golden, folder / "golden.safetensors", metadata={"texts": "[]"})


CORRUPTIONS: tuple[Callable[[Path], None], ...] = (skewed, truncated, incomplete, unknown, moved)


@dataclass
class Shop:
    """What is published."""

    folder: Path

    @property
    def repository(self) -> Path:
        """Where the worker looks."""
        return self.folder / "repository"

    @property
    def draft(self) -> Path:
        """What is published next."""
        return self.folder / "draft"

    def make(self, number: int) -> None:
        """Write a sound bundle, with weights that no other number has."""
        shutil.rmtree(self.draft, ignore_errors=True)
        write_small(self.draft, number)

    def publish(self) -> str:
        """Let it be the latest."""
        return Repository(self.repository).publish(self.draft, NAME)

    def publish_corrupt(self, number: int) -> tuple[str, str]:
        """Spoil it first; gives its version and what is wrong with it."""
        corrupt = CORRUPTIONS[number % len(CORRUPTIONS)]
        (self.draft / "README.md").write_text(f"# Corrupt, number {number}\n")
        corrupt(self.draft)
        return self.publish(), corrupt.__name__


# ---------------------------------------------------------------- callers


@dataclass
class Heard:
    """What one kind of callers was told."""

    took: list[float] = field(default_factory=list)
    """Seconds of each answer; of frames, their age."""
    failed: Counter[str] = field(default_factory=Counter)
    """Everything else, by what it was told."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Frames that gave way to newer ones, or outlived their lifespan: they are told so, as they
    should be, and are neither."""
    versions: set[str] = field(default_factory=set)
    """That answered."""


async def calls(
    client: tectum.AsyncClient, heard: Heard, done: asyncio.Event, pace: float, **options: Any
) -> None:
    """Ask until it is done, each time at its time, or as fast as answers come if there is none."""
    picture = PICTURE
    due = time.perf_counter()
    while not done.is_set():
        due = max(due + pace, time.perf_counter() - 1.0) if pace else due
        await asyncio.sleep(max(0.0, due - time.perf_counter()) if pace else 0.0)
        began = time.perf_counter()
        try:
            answer = await client.embed_images([picture], retries=0, **options)
        except tectum.TectumError as error:
            heard.failed[error.reason or type(error).__name__] += 1
            await asyncio.sleep(0.01)
        else:
            heard.took.append(time.perf_counter() - began)
            heard.versions.add(answer.info.version)


async def camera(client: tectum.AsyncClient, heard: Heard, done: asyncio.Event) -> None:
    """A live stream until it is done."""

    async def frames() -> AsyncIterator[tectum.Frame]:
        while not done.is_set():
            yield tectum.Frame(PICTURE, captured_at=time.time())
            await asyncio.sleep(1 / STREAM_HZ)

    try:
        async with client.stream(frames(), embed=True, lifespan=LIFESPAN_S, kind=POOLED) as stream:
            async for result in stream:
                if result.status is tectum.FrameStatus.OK and result.info is not None:
                    heard.took.append(result.age)
                    heard.versions.add(result.info.version)
                elif result.status in (tectum.FrameStatus.SUPERSEDED, tectum.FrameStatus.STALE):
                    heard.skipped[result.status.value] += 1
                else:
                    reason = result.error.reason if result.error is not None else ""
                    heard.failed[reason or result.status.value] += 1
    except tectum.TectumError as error:
        heard.failed[f"the stream ended: {error.reason or type(error).__name__}"] += 1


# ---------------------------------------------------------------- swaps


@dataclass
class Swaps:
    """What was published, and how the worker took it."""

    seconds: list[float] = field(default_factory=list)
    """From each publication to the answer that tells of it."""
    corrupt: Counter[str] = field(default_factory=Counter)
    """By kind."""
    bad: set[str] = field(default_factory=set)
    """Corrupt versions."""
    memory: list[dict[str, float]] = field(default_factory=list)
    """After each swap, MiB by process."""


async def swap(client: tectum.AsyncClient, worker: Served, shop: Shop, count: int) -> Swaps:
    """Publish so many, each once the one before has been taken or rejected."""
    told = Swaps()
    for number in track(range(1, count + 1), "swaps", transient=True):
        is_corrupt = number % CORRUPT_EVERY == 0
        await asyncio.to_thread(shop.make, number)
        began = time.perf_counter()
        if is_corrupt:
            version, kind = await asyncio.to_thread(shop.publish_corrupt, number // CORRUPT_EVERY)
            told.corrupt[kind] += 1
            told.bad.add(version)
        else:
            version = await asyncio.to_thread(shop.publish)
        async with asyncio.timeout(PATIENCE):
            # Nothing tells of a rejection by itself, so it is asked for.
            while not _taken(await client.get_model(timeout=PATIENCE), version, is_corrupt):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        told.seconds.append(time.perf_counter() - began)
        told.memory.append(worker.memory())
    return told


def _taken(model: tectum.Model, version: str, is_corrupt: bool) -> bool:
    """Whether a version serves; if it is corrupt, whether it was rejected instead.

    Raises:
        AssertionError: a corrupt version serves, or a sound one was rejected.
    """
    rejected = model.rejection is not None and model.rejection.version == version
    if model.version == version if is_corrupt else rejected:
        raise AssertionError(f"{version} was taken for what it is not: {model.rejection}")
    return rejected if is_corrupt else model.version == version


async def run(worker: Served, shop: Shop, count: int) -> tuple[dict[str, Heard], Swaps]:
    """Swap under load."""
    heard = {kind: Heard() for kind in ("as fast as answers come", "CONTROL", "streams")}
    first, second, third = heard.values()
    done = asyncio.Event()
    async with tectum.AsyncClient(worker.address) as client, asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(calls(client, first, done, 0.0, timeout=INTERACTIVE_S, kind=POOLED))
        group.create_task(
            calls(
                client,
                second,
                done,
                1 / CONTROL_HZ,
                timeout=CONTROL_S,
                kind=POOLED,
                priority=tectum.Priority.CONTROL,
            )
        )
        for _ in range(STREAMS):
            group.create_task(camera(client, third, done))
        try:
            told = await swap(client, worker, shop, count)
        finally:
            done.set()
    return heard, told


def report(heard: dict[str, Heard], told: Swaps) -> str:
    """Two tables and a verdict."""
    lines = ["| callers | answered | failed | why | passed over | p50 ms | p99 ms | longest ms |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind, one in heard.items():
        why = ", ".join(f"{n} {reason}" for reason, n in one.failed.most_common()) or "–"
        skipped = ", ".join(f"{n} {status}" for status, n in one.skipped.most_common()) or "–"
        times = (1000 * percentile(one.took, p) for p in (50, 99, 100))
        told_times = " | ".join(f"{time:.0f}" for time in times)
        lines.append(
            f"| {kind} | {len(one.took)} | {sum(one.failed.values())} | {why} | {skipped} | "
            f"{told_times} |"
        )
    swaps, kinds = len(told.seconds), ", ".join(f"{n} {kind}" for kind, n in told.corrupt.items())
    lines += ["", f"{swaps} publications, {sum(told.corrupt.values())} of them corrupt ({kinds});"]
    lines += [
        f"from one to the answer that tells of it: median {percentile(told.seconds, 50):.2f} s, "
        f"longest {max(told.seconds):.2f} s. Versions that answered: "
        f"{len(set().union(*(one.versions for one in heard.values())))}, corrupt ones among them: "
        f"{len(told.bad & set().union(*(one.versions for one in heard.values())))}.",
        "",
        f"| process | MiB after {SETTLED} swaps | at the end | MiB a hundred swaps, ± 2 SE |",
        "| --- | --- | --- | --- |",
    ]
    flat = True
    for role in ("engine", "front"):
        values = [one[role] for one in told.memory[SETTLED:]]
        slope = trend(values)
        flat = flat and slope.about_zero
        lines.append(f"| {role} | {values[0]:.0f} | {values[-1]:.0f} | {slope.told(100)} |")
    failures = sum(sum(one.failed.values()) for one in heard.values())
    holds = not failures and not told.bad & set().union(*(one.versions for one in heard.values()))
    lines += [
        "",
        f"No call failed: {'PASS' if holds else 'FAIL'} ({failures} failed). "
        f"Memory does not grow, within two standard errors: {'PASS' if flat else 'FAIL'}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=200, help="publications, corrupt ones too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/reload.md")
    given = parser.parse_args()
    if given.swaps < SETTLED + 24:
        parser.error(f"--swaps: found {given.swaps}; allowed: at least {SETTLED + 24}")
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        shop.make(0)
        shop.publish()
        log = shop.folder / "log"
        with served(shop.repository, NAME, log=log, watch=0.1, max_batch=8) as worker:
            heard, told = asyncio.run(run(worker, shop, given.swaps))
    text = heading("Hot reload under load") + "\n" + report(heard, told)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
