"""Mixed load for twenty minutes: does anything grow, and is anything left over?

The embedded model behind `tectum serve`, asked for everything it can do, in every class, with
pictures of several sizes and encodings; beside that what real callers do: robots whose streams come
and go, clients that connect for one call, calls that are given up, requests that have no answer.
Memory, threads, file descriptors and shared memory of front, engine and supervisor are noted every
few seconds; their asyncio tasks, names of shared memory, and all the rest, once before and once
after the load, in rest (`counting/sitecustomize.py`). Prints a table and writes
benchmarks/results/soak.md.

    python benchmarks/soak.py [--minutes 20]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.progress import Progress

import tectum
from machine import heading
from served import Served, served
from tectum_cli.load.pictures import drawn, encoded
from tectum_core import embedded
from tectum_server.worker.shared_names import FOLDER
from trend import trend

CALLERS, CAMERAS, HZ = 6, 2, 10.0
PAUSE, LIVES, EVERY = 0.05, (3.0, 15.0), 5.0
"""Seconds: mean pause between a caller's calls; how long a stream lasts; between two looks."""
WARM_UP, REST, RESTS = 90.0, 8.0, 6
"""Seconds of load before the first rest; of rest before it is looked what there is, and at the end
at most so often."""
DEADLINE = 20.0
HERE = Path(__file__).parent
SIDES = (64, 96, 200, 333)


# ---------------------------------------------------------------- what is seen


@dataclass(frozen=True)
class Look:
    """What a process has."""

    memory: float
    """MiB, pages shared with others included."""
    threads: int
    descriptors: int
    shared: int
    """Mappings of shared memory."""
    tasks: int = -1
    """Of asyncio's; -1: not asked."""
    names: Counter[str] = field(default_factory=Counter)
    """Of threads."""

    def more_than(self, other: Look) -> dict[str, int]:
        """What there is more of than there was, memory apart."""
        names = ("tasks", "threads", "descriptors", "shared")
        more = {name: getattr(self, name) - getattr(other, name) for name in names}
        return {name: count for name, count in more.items() if count > 0}


def look(pid: int, counting: Path | None = None) -> Look:
    """At a process; how many tasks it has only if there is a folder to tell it in."""
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    maps = Path(f"/proc/{pid}/maps").read_text()
    return Look(
        int(numbers["VmRSS"].split()[0]) / 1024,
        int(numbers["Threads"]),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        sum("memfd:" in line or "/dev/shm/" in line for line in maps.splitlines()),
        -1 if counting is None else _tasks(pid, counting),
        Counter(path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")),
    )


def _tasks(pid: int, folder: Path) -> int:
    """How many tasks a process has; it is asked, and tells."""
    told = folder / str(pid)
    told.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    ends = time.monotonic() + 10
    while not told.exists():
        if time.monotonic() > ends:
            raise TimeoutError(f"process {pid} does not say how many tasks it has")
        time.sleep(0.01)
    return int(told.read_text().splitlines()[0])


# ---------------------------------------------------------------- what is asked


@dataclass
class Load:
    """Callers of all kinds, and what they were told."""

    address: str
    model: tectum.Model
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By what was asked, and how it ended."""
    frames: Counter[str] = field(default_factory=Counter)
    hung: list[str] = field(default_factory=list)
    """What had twenty seconds and was told nothing."""

    def __post_init__(self) -> None:
        self._dice = random.Random(0)
        raw = [drawn(side, side, 2, seed=side) for side in SIDES]
        files = [
            encoded(picture, kind)
            for pictures in raw
            for picture, kind in zip(pictures, ("jpeg", "png"), strict=True)
        ]
        self._pictures = [*itertools.chain.from_iterable(raw), *files]

    def picture(self) -> Any:
        """One of them."""
        return self._dice.choice(self._pictures)

    def asking(self, client: tectum.AsyncClient) -> dict[str, Callable[..., Awaitable[Any]]]:
        """Everything that the model can do."""
        spec, able = self.model.input, set(self.model.capabilities)
        can = tectum.Capability
        some = [self.picture() for _ in range(self._dice.randrange(1, 9))]
        found: dict[str, Callable[..., Awaitable[Any]]] = {
            "embed_images": lambda **o: client.embed_images(some, **o),
            "list_models": lambda **o: client.list_models(timeout=o["timeout"]),
        }
        if can.EMBED_TEXTS in able:
            texts = ["open the drawer", "close it " * self._dice.randrange(1, 40)]
            found["embed_texts"] = lambda **o: client.embed_texts(texts, **o)
            found["similarity"] = lambda **o: client.similarity(some, texts, **o)
        if can.RECONSTRUCT_IMAGES in able:
            found["reconstruct_image"] = lambda **o: client.reconstruct_image(some[0], **o)
        if spec.latent_action is not None:
            pair, apart = [self.picture(), self.picture()], spec.latent_action.interval
            found["latent_actions"] = lambda **o: client.predict_latent_actions(
                pair, interval=apart, **o
            )
        return found

    @property
    def is_served(self) -> bool:
        """Whether all kinds were answered, none by a fault, and no stream ended by itself."""
        kinds = {what for what, _ in self.told} - {"nonsense"}
        answered = all(self.told[what, "answered"] for what in kinds)
        faults = sum(n for (_, how), n in self.told.items() if how in ("INTERNAL", "InternalError"))
        ended = any(status.startswith("ended") for status in self.frames)
        return bool(kinds) and answered and not faults and not ended and self.frames["ok"] > 0

    async def call(self, done: asyncio.Event) -> None:
        """Ask for one thing after the other."""
        async with tectum.AsyncClient(self.address, retries=0) as client:
            while not done.is_set():
                await self.ask(client)
                await asyncio.sleep(self._dice.expovariate(1 / PAUSE))

    async def ask(self, client: tectum.AsyncClient) -> None:
        """Ask for anything; some calls are given up, some cannot be answered."""
        what, ask = self._dice.choice(list(self.asking(client).items()))
        options: dict[str, Any] = {"timeout": DEADLINE}
        fate = self._dice.random()
        if what != "list_models":
            options["priority"] = self._dice.choice(list(tectum.Priority))
        if fate < 0.05:
            what, ask = "nonsense", lambda **o: client.embed_images([b"\xff\xd8no picture"], **o)
        elif fate < 0.1:
            options["timeout"] = 0.001
        work = asyncio.ensure_future(ask(**options))
        if 0.1 <= fate < 0.15:
            await asyncio.sleep(self._dice.random() * 0.02)
            work.cancel()
        try:
            answer = await work
            failed = getattr(answer, "errors", None)
            how = "some items failed" if failed else "answered"
        except tectum.DeadlineExceeded as error:
            how = error.reason or type(error).__name__
            if options["timeout"] == DEADLINE and not error.reason:
                self.hung.append(what)  # the worker has said nothing
        except tectum.TectumError as error:
            how = error.reason or type(error).__name__
        except asyncio.CancelledError:
            if not work.cancelled():
                raise
            how = "given up"
        self.told[what, how] += 1

    async def drop_in(self, done: asyncio.Event) -> None:
        """Connect for one call, again and again."""
        while not done.is_set():
            async with tectum.AsyncClient(self.address, retries=0) as client:
                await self.ask(client)
            await asyncio.sleep(0.2)

    async def camera(self, done: asyncio.Event) -> None:
        """Live streams, one after the other; every other one is broken off."""
        for number in itertools.count():
            if done.is_set():
                return
            ends = time.monotonic() + self._dice.uniform(*LIVES)
            async with tectum.AsyncClient(self.address) as client:
                send = "shared" if number % 4 < 2 else "raw"
                frames = self._frames(ends, done)
                stream = client.stream(frames, embed=True, lifespan=1.0, send=send)
                try:
                    async with stream:
                        async for result in stream:
                            self.frames[result.status.value] += 1
                            if number % 2 and time.monotonic() > ends - 1:
                                break
                except tectum.TectumError as error:
                    self.frames[f"ended: {error.reason or type(error).__name__}"] += 1

    async def _frames(self, ends: float, done: asyncio.Event) -> AsyncIterator[tectum.Frame]:
        while time.monotonic() < ends and not done.is_set():
            yield tectum.Frame(self.picture(), captured_at=time.time())
            await asyncio.sleep(1 / HZ)

    async def run(self, seconds: float, looking: Callable[[], None] = lambda: None) -> None:
        """All of them for so long."""
        done, ends = asyncio.Event(), time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self.call(done))
            group.create_task(self.drop_in(done))
            for _ in range(CAMERAS):
                group.create_task(self.camera(done))
            try:
                while time.monotonic() < ends:
                    await asyncio.sleep(min(EVERY, max(0.0, ends - time.monotonic())))
                    looking()
            finally:
                done.set()


# ---------------------------------------------------------------- the whole


@dataclass
class Seen:
    """What there was of each process."""

    before: dict[str, Look]
    after: dict[str, Look]
    during: dict[str, list[Look]]
    names: set[str]
    """Of shared memory that came and stayed."""


async def run(worker: Served, minutes: float, counting: Path) -> tuple[Load, Seen]:
    """Warm up, rest, load, rest."""
    async with tectum.AsyncClient(worker.address) as client:
        load = Load(worker.address, await client.get_model())
    pids = {**worker.pids(), "supervisor": worker.process.pid}
    during: dict[str, list[Look]] = {role: [] for role in pids}
    with Progress(transient=True) as progress:
        task = progress.add_task("soaking", total=60 * minutes)

        def note() -> None:
            for role, pid in pids.items():
                during[role].append(look(pid))
            progress.advance(task, EVERY)

        await load.run(WARM_UP)
        await asyncio.sleep(REST)
        before = {role: look(pid, counting) for role, pid in pids.items()}
        there = shared_names()
        await load.run(60 * minutes, note)
    if worker.pids().items() - pids.items():
        raise RuntimeError("a process was replaced meanwhile; the worker's log says why")
    for _ in range(RESTS):  # a library's pool takes its time to let a thread go
        await asyncio.sleep(REST)
        after = {role: look(pid, counting) for role, pid in pids.items()}
        left = shared_names() - there
        if not left and not any(after[role].more_than(before[role]) for role in pids):
            break
    return load, Seen(before, after, during, left)


def shared_names() -> set[str]:
    """Of shared memory on this machine that is Tectum's."""
    return {path.name for path in FOLDER.glob("tectum*")}


def report(load: Load, seen: Seen) -> str:
    """What was asked, what grew, what is left."""
    lines = ["| asked | how it ended |", "| --- | --- |"]
    for what in sorted({what for what, _ in load.told}):
        ended = [(n, how) for (asked, how), n in load.told.most_common() if asked == what]
        lines.append(f"| {what} | {', '.join(f'{n} {how}' for n, how in ended)} |")
    told = ", ".join(f"{n} {status}" for status, n in load.frames.most_common())
    lines += [f"| frames of streams | {told} |", ""]
    lines += [
        "| MiB, means of fifths |" + "   |" * 5,
        "|" + " --- |" * 6,
    ]
    for role, looks in seen.during.items():
        fifths = (fmean(one.memory for one in part) for part in _fifths(looks))
        lines.append(f"| {role} | {' | '.join(f'{mean:.1f}' for mean in fifths)} |")
    lines += [
        "",
        "| process | MiB at first, at last | MiB an hour, ± 2 SE | tasks, threads, descriptors, "
        "shared mappings in rest: before | after |",
        "| --- | --- | --- | --- | --- |",
    ]
    flat, left = True, [f"shared memory {name}" for name in sorted(seen.names)]
    for role, looks in seen.during.items():
        slope = trend([one.memory for one in looks])
        flat = flat and slope.about_zero
        lines.append(
            f"| {role} | {looks[0].memory:.0f}, {looks[-1].memory:.0f} | "
            f"{slope.told(round(3600 / EVERY))} | {_rest(seen.before[role])} | "
            f"{_rest(seen.after[role])} |"
        )
        more = seen.after[role].more_than(seen.before[role])
        left += [f"{count} {name} in the {role}" for name, count in more.items()]
        names = seen.after[role].names - seen.before[role].names
        left += [f"thread {name} in the {role}" for name in names.elements()]
    told = f"FAIL ({', '.join(left)})" if left else "PASS"
    lines += [
        "",
        f"- memory does not grow, within two standard errors: {'PASS' if flat else 'FAIL'}",
        f"- nothing is left over: {told}",
        f"- no call hangs: {f'FAIL ({len(load.hung)})' if load.hung else 'PASS'}",
        f"- whatever can be answered is: {'PASS' if load.is_served else 'FAIL'}",
    ]
    return "\n".join(lines) + "\n"


def _fifths(looks: Sequence[Look]) -> list[Sequence[Look]]:
    edges = [round(n * len(looks) / 5) for n in range(6)]
    return [looks[begin:end] for begin, end in itertools.pairwise(edges)]


def _rest(one: Look) -> str:
    return f"{one.tasks}, {one.threads}, {one.descriptors}, {one.shared}"


def main(given: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=HERE / "results/soak.md")
    asked = parser.parse_args(given)
    if asked.minutes * 60 / EVERY < 24:
        parser.error(f"--minutes: found {asked.minutes:g}; allowed: at least 2")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNTING"] = folder
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(HERE / "counting"), os.environ.get("PYTHONPATH")))
        )
        log = Path(folder, "log")
        settings = {"shared_memory_bytes": 64 * 2**20}
        with served(embedded.repository(), embedded.NAME, log=log, **settings) as worker:
            load, seen = asyncio.run(run(worker, asked.minutes, Path(folder)))
    text = heading(f"Mixed load for {asked.minutes:g} minutes") + "\n" + report(load, seen)
    asked.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
