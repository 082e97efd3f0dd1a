"""What a worker's faults cost those who have no part in them.

A small bundle behind `tectum serve`. Eight callers ask for one picture after the other and take
what they are told, four more try again until they are answered, a robot streams, and somebody looks
at the worker's health. Meanwhile, one after the other, everything happens that should not: the
engine is killed, or stopped; the front is killed; a picture has the engine raise, run out of
memory, crash; one has the decoder do so; a thousand clients vanish in the middle of their calls; a
robot never reads its answers. What no real input brings about is put into the processes by
`faulty/sitecustomize.py`.
Prints a table and writes benchmarks/results/faults.md.

    python benchmarks/faults.py [--clients 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.progress import track

import tectum
from bystanders import AWAY, DEADLINE, LATEST, POOLED, Bystanders
from faulty.sitecustomize import MARKS
from machine import heading
from served import Served, served
from small import NAME, PICTURE, SIDE, publish_small
from tectum_cli.load.pictures import encoded

CALLERS, PATIENT = 8, 4
BEFORE, AFTER = 2.0, 2.0
"""Seconds before a fault and after its end."""
ARRIVING = 5.0
"""Seconds within which the calls of a thousand clients are in the queue, or never."""
HEALTH_WITHIN = 1.0
GIVEN_UP = 5.0
"""Seconds after which the worker ends an engine that is silent: before its callers give up."""
HERE = Path(__file__).parent


# ---------------------------------------------------------------- what happens


@dataclass
class Scene:
    """A worker, and clients of it that bring faults about."""

    worker: Served
    client: tectum.AsyncClient
    clients: int

    async def waiting(self) -> float:
        """Items in the engine's queue."""
        return await asyncio.to_thread(self.worker.total, "tectum_queue_depth")


async def killed(scene: Scene, role: str) -> tuple[str, bool]:
    """A process is gone from one moment to the next."""
    os.kill(scene.worker.pids()[role], signal.SIGKILL)
    return "", True


async def stopped(scene: Scene, seconds: float) -> tuple[str, bool]:
    """The engine gets no processor time: for so long, or until it is given up."""
    engine = scene.worker.pids()["engine"]
    os.kill(engine, signal.SIGSTOP)
    if not seconds:
        return "", True
    await asyncio.sleep(seconds)
    os.kill(engine, signal.SIGCONT)
    return f"the same engine goes on after {seconds:g} s", True


async def marked(scene: Scene, mark: int, at: str, alone: bool) -> tuple[str, bool]:
    """A picture at which a process fails, between two good ones."""
    bad = np.full((SIDE, SIDE, 3), mark, np.uint8)
    picture = encoded(bad, "png") if at == "front" else bad
    try:
        batch = await scene.client.embed_images(
            [PICTURE, picture, PICTURE], kind=POOLED, timeout=DEADLINE, retries=0
        )
    except tectum.TectumError as error:
        why = error.reason or type(error).__name__
        return f"the call: {why}", why in AWAY and not alone
    failed = [f"{index} {error.reason}" for index, error in sorted(batch.errors.items())]
    told = f"of its three pictures failed: {', '.join(failed) or 'none'}"
    return told, alone and failed == ["1 INTERNAL"]


async def vanished(scene: Scene) -> tuple[str, bool]:
    """Clients are killed in the middle of their calls."""
    groups = 4
    command = [sys.executable, str(HERE / "vanishing.py"), scene.worker.address]
    processes = [
        await asyncio.create_subprocess_exec(
            *command,
            str(scene.clients // groups),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(groups)
    ]
    connections = 0
    try:
        for process in processes:
            assert process.stdout is not None
            connections += int(await process.stdout.readline() or 0)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"now\n")
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        asked, waiting = time.monotonic(), 0.0
        while waiting < scene.clients / 2 and time.monotonic() - asked < ARRIVING:
            waiting = await scene.waiting()
    finally:
        for process in processes:
            process.kill()
            await process.wait()
    began = time.monotonic()
    while await scene.waiting() > CALLERS + PATIENT + 1:
        if time.monotonic() - began > LATEST:
            return "their calls are still in the queue", False
        await asyncio.sleep(0.02)
    took = time.monotonic() - began
    told = f"{connections} connections, {waiting:.0f} calls waiting; {took:.2f} s later none was"
    return told, waiting >= scene.clients / 2 and connections == groups * (scene.clients // groups)


async def never_read(scene: Scene) -> tuple[str, bool]:
    """A robot sends frames and reads nothing, for a while."""
    command = [sys.executable, str(HERE / "vanishing.py"), scene.worker.address, "--deaf", "6"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    told = (await process.stdout.read()).split()
    await process.wait()
    sent = int(told[-1]) if told else 0
    return f"{sent} frames sent, none of the answers read", sent > 0


@dataclass(frozen=True)
class Fault:
    """Something that happens, and what it may cost."""

    name: str
    happens: Callable[[Scene], Awaitable[tuple[str, bool]]]
    """Brings it about; gives what came of it, and whether that is as it should be."""
    takes: Literal["", "engine", "front"] = ""
    """Which process goes; its callers are told so, and others serve again by themselves."""


def faults() -> list[Fault]:
    """All of them, in the order that they happen."""
    found = [Fault("the engine is killed", lambda s: killed(s, "engine"), "engine")]
    for name, seconds in (("", 0.0), (" for a moment", 2.0)):
        stops = Fault(f"the engine is stopped{name}", lambda s, t=seconds: stopped(s, t), "engine")  # type: ignore[misc]
        found.append(stops)
    words = {"raise": "raises", "memory": "runs out of memory", "crash": "crashes"}
    for what, mark in MARKS.items():
        takes: Literal["", "engine"] = "engine" if what == "crash" else ""
        name = f"a picture at which the engine {words[what]}"
        found.append(Fault(name, lambda s, m=mark, a=not takes: marked(s, m, "engine", a), takes))  # type: ignore[misc]
    for what, mark in MARKS.items():
        gone: Literal["", "front"] = "front" if what == "crash" else ""
        name = f"a picture at which the decoder {words[what]}"
        found.append(Fault(name, lambda s, m=mark + 10, a=not gone: marked(s, m, "front", a), gone))  # type: ignore[misc]
    found.append(Fault("clients that vanish in the middle of their calls", vanished))
    found.append(Fault("a robot that never reads its answers", never_read))
    found.append(Fault("the front is killed", lambda s: killed(s, "front"), "front"))
    return found


# ---------------------------------------------------------------- one after the other


@dataclass
class Cost:
    """What a fault cost those who have no part in it."""

    fault: Fault
    said: str
    as_it_should: bool
    answers: Counter[str]
    """Of calls that were under way at some moment of it."""
    patient: Counter[str]
    longest: float
    """Seconds that any of them was not told anything."""
    unhealthy_after: float | None
    healthy_after: float | None
    frames: int
    """Answers that the robot had in the two seconds after it."""

    @property
    def holds(self) -> dict[str, bool]:
        """What must hold of such a fault."""
        gone = bool(self.fault.takes)
        told = {"OK", *AWAY} if gone else {"OK"}
        return {
            "what happens to it is its own": self.as_it_should,
            "no call hangs": self.longest < DEADLINE and "DEADLINE_PASSED" not in self.answers,
            "every other call is answered": bool(self.answers) and self.answers.keys() <= told,
            "who tries again is served in the end": self.patient.keys() == {"OK"}
            and self.patient.total() >= PATIENT,
            "health tells of it within 1 s, and again when it is over": (
                self.unhealthy_after is not None
                and self.unhealthy_after <= HEALTH_WITHIN
                and self.healthy_after is not None
            )
            if gone
            else self.unhealthy_after is None,
            "the robot goes on": self.frames > 0,
        }


async def suffered(scene: Scene, seen: Bystanders, fault: Fault) -> Cost:
    """Let it happen, and wait until all is as before."""
    await asyncio.sleep(BEFORE)
    began = time.monotonic()
    said, as_it_should = await fault.happens(scene)
    happened = time.monotonic()
    if fault.takes:
        await _again(lambda: seen.turned(False, began) is not None, HEALTH_WITHIN + 2)
        dark = seen.turned(False, began)
        await _again(lambda: seen.turned(True, dark or began) is not None, LATEST)
    await _again(lambda: bool(seen.told) and seen.told[-1][2] == "OK", LATEST)
    over = time.monotonic()
    # Whoever asked before it was over is told something by then, or hangs.
    await _again(lambda: min(seen.begun.values()) > over, DEADLINE + 2)
    hangs = time.monotonic() - min(seen.begun.values())
    await _again(
        lambda: sum(end >= began and start <= over for start, end, _ in seen.patient) >= PATIENT,
        LATEST,
    )
    await asyncio.sleep(AFTER)
    dark = seen.turned(False, began)
    light = None if dark is None else seen.turned(True, dark)
    during = [one for one in seen.told if one[1] >= began and one[0] <= over]
    patient = [one for one in seen.patient if one[1] >= began and one[0] <= over]
    return Cost(
        fault,
        said,
        as_it_should,
        Counter(what for _, _, what in during),
        Counter(what for _, _, what in patient),
        max(hangs, *(ended - started for started, ended, _ in during)),
        None if dark is None else dark - began,
        None if light is None else light - began,
        sum(when > max(over, happened) and status == "ok" for when, status in seen.frames),
    )


async def _again(condition: Callable[[], bool], patience: float) -> None:
    """Wait until it is so, or long enough."""
    ends = time.monotonic() + patience
    while not condition() and time.monotonic() < ends:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.005)


async def run(worker: Served, clients: int) -> tuple[list[Cost], Bystanders]:
    """All faults, under load."""
    seen, done = Bystanders(), asyncio.Event()
    async with (
        tectum.AsyncClient(worker.address) as client,
        tectum.AsyncClient(worker.address) as other,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CALLERS):
            group.create_task(seen.call(client, done))
        for _ in range(PATIENT):
            group.create_task(seen.insist(client, done))
        group.create_task(seen.stream(client, done))
        group.create_task(seen.watch(worker.address, done))
        scene = Scene(worker, other, clients)
        try:
            costs = [
                await suffered(scene, seen, fault)
                for fault in track(faults(), "faults", transient=True)
            ]
        finally:
            done.set()
    return costs, seen


def report(costs: Sequence[Cost], seen: Bystanders) -> str:
    """A table, what each fault's own caller was told, and verdicts."""
    lines = [
        "| fault | other calls meanwhile | of callers that try again | longest ms | "
        "health false after ms | true again after s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cost in costs:
        answers, patient = (
            ", ".join(f"{n} {what}" for what, n in counts.most_common())
            for counts in (cost.answers, cost.patient)
        )
        dark = "–" if cost.unhealthy_after is None else f"{1000 * cost.unhealthy_after:.0f}"
        light = "–" if cost.healthy_after is None else f"{cost.healthy_after:.1f}"
        lines.append(
            f"| {cost.fault.name} | {answers} | {patient} | {1000 * cost.longest:.0f} | {dark} | "
            f"{light} |"
        )
    lines += ["", *(f"- {cost.fault.name}: {cost.said}" for cost in costs if cost.said), ""]
    for what in costs[0].holds:
        failing = [cost.fault.name for cost in costs if not cost.holds[what]]
        told = f"FAIL ({', '.join(failing)})" if failing else "PASS"
        lines.append(f"- {what}: {told}")
    lines.append(f"- the robot's stream: {f'FAIL ({seen.lost})' if seen.lost else 'PASS'}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000, help="that vanish")
    parser.add_argument("--out", type=Path, default=HERE / "results/faults.md")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(HERE / "faulty"), os.environ.get("PYTHONPATH")))
    )
    with tempfile.TemporaryDirectory() as folder:
        repository, log = publish_small(Path(folder)), Path(folder, "log")
        settings: dict[str, object] = {"max_batch": 8, "compute_timeout": GIVEN_UP}
        settings["max_queued_items"] = 2 * given.clients + 256
        with served(repository, NAME, log=log, **settings) as worker:
            costs, seen = asyncio.run(run(worker, given.clients))
    text = heading("What faults cost") + "\n" + report(costs, seen)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
