"""Live cameras of many robots, over what the worker can do: is each served, and by its last frame?

A bundle of a ViT's shape (S/32 unless --width says otherwise); every robot streams JPEG frames of
the model's size at 30 Hz, far more than the worker answers, once for each lifespan. Of each answer
is noted how old its frame was when the robot heard it, and how much newer a frame the robot had
sent, and the worker had, when the engine began with it. Every answer is judged. Prints tables and
writes benchmarks/results/streams.md.

    python benchmarks/streams.py [--robots 32] [--seconds 60] [--lifespans 1 5]
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import tectum
from machine import heading
from served import Served, served
from serving_bare import NAME, SIDE, make_bundle
from tectum_cli.load.pictures import Picture, drawn, encoded
from tectum_cli.load.report import percentile

HZ, WARM_UP = 30.0, 5.0
FAIR, ON_THE_WAY, ASKED = 0.2, 0.05, 0.1
"""Rates may differ by so much of their mean; frames and answers have so many seconds on their way;
who waits is asked for what is newer every so many seconds."""


@dataclass
class Robot:
    """One camera, and what it heard."""

    captured: list[float] = field(default_factory=list)
    """When each frame was, by its id."""
    answers: list[tuple[float, tectum.FrameResult]] = field(default_factory=list)
    """With when they came."""
    lifespan: float = 1.0
    """Of its frames, seconds."""
    ended: str = ""
    """Why the stream did. Empty: it was told to."""

    async def live(self, client: tectum.AsyncClient, pictures: list[Picture], ends: float) -> None:
        """Stream until then."""
        try:
            async with client.stream(
                self._frames(pictures, ends), embed=True, lifespan=self.lifespan
            ) as stream:
                async for result in stream:
                    self.answers.append((time.time(), result))
        except tectum.TectumError as error:
            self.ended = f"{error}"

    async def _frames(self, pictures: list[Picture], ends: float) -> AsyncIterator[tectum.Frame]:
        due = time.time()
        while due < ends:
            await asyncio.sleep(max(0.0, due - time.time()))
            self.captured.append(time.time())
            picture = pictures[len(self.captured) % len(pictures)]
            yield tectum.Frame(picture, self.captured[-1], frame_id=len(self.captured) - 1)
            due += 1 / HZ

    def between(self, begins: float, ends: float) -> list[tuple[float, tectum.FrameResult]]:
        """The answers that came in that time."""
        return [one for one in self.answers if begins <= one[0] < ends]

    def sent(self, begins: float, ends: float) -> int:
        """How many frames it captured in that time."""
        return bisect.bisect(self.captured, ends) - bisect.bisect(self.captured, begins)

    def age(self, came: float, result: tectum.FrameResult) -> float:
        """How old an answer's frame was when it was heard, seconds."""
        return came - self.captured[result.frame_id]

    def outdated(self, came: float, result: tectum.FrameResult) -> float:
        """How much newer a frame it had sent, and the worker surely had, as the engine began.

        Seconds, from the answer's frame to that one.
        """
        spent = 0.0 if result.info is None else result.info.timings.compute
        newest = bisect.bisect(self.captured, came - spent - 2 * ON_THE_WAY) - 1
        return max(0.0, self.captured[newest] - self.captured[result.frame_id])

    def had(self) -> list[float]:
        """When the worker had each frame at the latest, as it told: the one before was outdone."""
        latest = [float("inf")] * (len(self.captured) + 1)
        for _, result in self.answers:
            told = self.captured[result.frame_id] + result.age
            after = result.frame_id + (result.status is tectum.FrameStatus.SUPERSEDED)
            latest[after] = min(latest[after], told)
        for number in reversed(range(len(latest) - 1)):  # they come in order
            latest[number] = min(latest[number], latest[number + 1])
        return latest

    def missed(self, had: list[float], result: tectum.FrameResult) -> float:
        """How much newer a frame the worker had, a moment before the engine began.

        Seconds, from the answer's frame to that one.
        """
        own, spent = result.frame_id, 0.0 if result.info is None else result.info.timings.compute
        began = self.captured[own] + result.age - spent
        newest = bisect.bisect(had[:-1], began - 2 * ON_THE_WAY) - 1
        return self.captured[max(own, newest)] - self.captured[own]


async def run(
    worker: Served, robots: int, seconds: float, lifespan: float
) -> tuple[list[Robot], float, float]:
    """So many robots for so long; gives when what counts begins and ends, too."""
    pictures = [encoded(one, "jpeg") for one in drawn(SIDE, SIDE, 8, seed=0)]
    fleet = [Robot(lifespan=lifespan) for _ in range(robots)]
    begins = time.time() + WARM_UP
    ends = begins + seconds
    async with tectum.AsyncClient(worker.address) as client, asyncio.TaskGroup() as group:
        for robot in fleet:
            group.create_task(robot.live(client, pictures, ends))
    return fleet, begins, ends


def report(width: int, fleet: list[Robot], begins: float, ends: float) -> str:
    """A table and a verdict for each thing asked."""
    told = [robot.between(begins, ends) for robot in fleet]
    statuses = Counter(result.status for some in told for _, result in some)
    good = [
        (robot, came, result)
        for robot, some in zip(fleet, told, strict=True)
        for came, result in some
        if result.status is tectum.FrameStatus.OK and result.info is not None
    ]
    rates = [
        sum(result.status is tectum.FrameStatus.OK for _, result in some) / (ends - begins)
        for some in told
    ]
    ages = [robot.age(came, result) for robot, came, result in good]
    lifespan = fleet[0].lifespan
    batch = max((r.info.timings.compute for _, _, r in good if r.info is not None), default=0.0)
    outdated = [robot.outdated(came, result) for robot, came, result in good]
    there = {id(robot): robot.had() for robot in fleet}
    missed = [robot.missed(there[id(robot)], result) for robot, _, result in good]
    mean = sum(rates) / len(rates)
    apart = (max(rates) - min(rates)) / mean if mean else float("inf")
    offered = sum(robot.sent(begins, ends) for robot in fleet)
    rows = {
        "trunk's width": f"{width}",
        "frames' lifespan, s": f"{lifespan:g}",
        "robots, frames a second of all": f"{len(fleet)}, {offered / (ends - begins):.0f}",
        "answered a second, of all": f"{len(good) / (ends - begins):.1f}",
        "of each robot: fewest, mean, most a second": ", ".join(
            f"{rate:.2f}" for rate in (min(rates), mean, max(rates))
        ),
        "frames: answered, superseded, stale, failed": ", ".join(
            str(statuses[status])
            for status in (
                tectum.FrameStatus.OK,
                tectum.FrameStatus.SUPERSEDED,
                tectum.FrameStatus.STALE,
                tectum.FrameStatus.FAILED,
            )
        ),
        "age as the answer is heard, ms: p50, p99, oldest": ", ".join(
            f"{1000 * percentile(ages, p):.0f}" for p in (50, 99, 100)
        ),
        "longest batch, ms": f"{1000 * batch:.0f}",
        "a newer frame waited, newer by ms: p50, p99, most": ", ".join(
            f"{1000 * percentile(outdated, p):.0f}" for p in (50, 99, 100)
        ),
        "the worker had a newer frame, newer by ms: p50, p99, most": ", ".join(
            f"{1000 * percentile(missed, p):.0f}" for p in (50, 99, 100)
        ),
    }
    verdicts = {
        f"every answer is of the newest frame there was {ASKED:g} s before": bool(outdated)
        and max(outdated) <= ASKED,
        f"and of the newest that the worker had {ASKED:g} s before": bool(missed)
        and max(missed) <= ASKED,
        "every robot is answered": min(rates) > 0,
        f"no answer is older than the lifespan ({lifespan:g} s) and a batch": bool(ages)
        and max(ages) <= lifespan + batch + ON_THE_WAY,
        "no frame failed": not statuses[tectum.FrameStatus.FAILED],
        f"rates lie within {FAIR:.0%} of each other ({apart:.0%})": apart <= FAIR,
        "no stream ended by itself": not any(robot.ended for robot in fleet),
    }
    lines = ["| of all robots | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += [""] + [f"- {what}: {'PASS' if holds else 'FAIL'}" for what, holds in verdicts.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robots", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="that count")
    parser.add_argument("--lifespans", type=float, nargs="+", default=[1.0, 5.0], help="seconds")
    parser.add_argument("--width", type=int, default=384, help="of the trunk; B/32 has 768")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/streams.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = make_bundle(Path(folder), given.width)
        text = heading("Live streams over capacity")
        for lifespan in given.lifespans:
            with served(repository, NAME, max_streams=given.robots) as worker:
                told = asyncio.run(run(worker, given.robots, given.seconds, lifespan))
            text += "\n" + report(given.width, *told)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
