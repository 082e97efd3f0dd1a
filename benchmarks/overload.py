"""Ten times as much as a worker can do: what is answered in time, and who.

A ViT-B/32-shaped bundle behind `tectum serve`. For each of several largest batches of what is not
CONTROL (`max_block_ms`, from what batches of so many pictures take here) a worker is begun anew. It
is asked in a closed loop what it can do, and alone what a CONTROL call takes; then calls come by
Poisson at ten times that rate, one in a hundred of them CONTROL, with one and a half times its own
time and `max_block_ms` to be answered in, and all others with two seconds. The cap that is chosen
is asked for a minute with one picture a call, for one with eight, and for one with one JPEG of a
camera's size, and for as much longer as brings so many CONTROL calls that half a percent of them is
more than one. Prints a table and writes benchmarks/results/overload.md.

    python benchmarks/overload.py [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.progress import track

from machine import heading
from served import Served, served
from serving_bare import NAME, PHOTOGRAPH, SIDE, make_bundle
from tectum import Priority
from tectum_cli.load.arrivals import poisson
from tectum_cli.load.driving import Outcome, Result, closed_loop, open_loop
from tectum_cli.load.pictures import Picture, drawn, encoded
from tectum_cli.load.report import Summary, summary
from tectum_cli.load.target import Target
from tectum_cli.load.traffic import Question, Traffic
from tectum_cli.load.worker import WorkerCalls, worker_calls
from trend import Trend, trend

CAPS, CHOSEN, ITEMS = (1, 2, 4, 8), 4, 8
"""Pictures in the largest batch that CONTROL may have to wait for; pictures of a batch request."""
LOAD, CONTROL_SHARE, DEADLINE = 10.0, 0.01, 2.0
CALLERS, MOST_OPEN, LOOK = 48, 2048, 0.5
DECODED = "tectum_decode_duration_seconds_count"
ENOUGH = 400
"""CONTROL calls in a leg that is judged."""
ONCE = 0.001
"""Seconds of a closed loop in which no second call begins."""
GOODPUT, IN_TIME, REFUSED_MS, UNSENT = 0.9, 0.995, 20.0, 0.01
CONTROL, INTERACTIVE = Priority.CONTROL, Priority.INTERACTIVE
OP = "embed_images"
RAW, JPEG = "raw", "JPEG {}×{}".format(*PHOTOGRAPH)
"""What pictures come as: such as the model takes, or as cameras send them."""


@dataclass
class Leg:
    """One load on one worker."""

    cap: int
    block_ms: int
    items: int
    """Pictures of a call."""
    form: str
    """`RAW` or `JPEG`."""
    seconds: float
    capacity: float
    """Pictures a second in a closed loop, under the same cap."""
    control_deadline: float
    everything: Summary
    control: Summary
    memory: dict[str, Trend]
    """By process, a slope a look."""
    reasons: Counter[str]
    """Why CONTROL calls were not in time."""
    decoded: float
    """Files that were read, whatever became of them."""

    @property
    def goodput(self) -> float:
        """Of what the worker can do."""
        return self.everything.goodput / self.capacity

    def share(self, outcome: Outcome) -> float:
        """Of all calls."""
        return self.everything.outcomes.get(outcome.value, 0) / self.everything.calls

    @property
    def read(self) -> float:
        """Files that were read for each that was answered; 0 if none came."""
        answered = self.everything.outcomes.get(Outcome.ANSWERED.value, 0) * self.items
        return self.decoded / answered if answered else math.nan

    @property
    def refused_ms(self) -> float:
        """How soon nearly all that were refused were told so."""
        return self.everything.refusal_ms.get("p99", math.nan)


def asked(
    worker: Served, items: int, form: str = RAW
) -> AbstractAsyncContextManager[tuple[str, WorkerCalls]]:
    """Who asks a worker for so many pictures a call."""
    pictures: list[Picture] = [*drawn(SIDE, SIDE, 8, seed=0)]
    if form == JPEG:
        pictures = [encoded(one, "jpeg") for one in drawn(*PHOTOGRAPH, 8, seed=0)]
    return worker_calls(Target(worker.address, "", NAME, [pictures], items, (OP,)))


async def alone(worker: Served, items: int, calls: int, form: str = RAW) -> tuple[float, float]:
    """Seconds that one caller's call takes, and that the engine computes, medians."""
    async with asked(worker, items, form) as (_, ask):
        took, computed = list[float](), list[float]()
        for number in range(calls + 2):
            results = await closed_loop(lambda: Question(OP, CONTROL, None), ask, 1, ONCE)
            if number >= 2:
                took += [one.took for one in results]
                computed += [one.answer.compute or 0.0 for one in results]
    return statistics.median(took), statistics.median(computed)


async def capacity(worker: Served, items: int, form: str, seconds: float) -> float:
    """Pictures a second of callers that ask again at once, CONTROL among them."""
    traffic = Traffic({OP: 1.0}, {CONTROL: CONTROL_SHARE, INTERACTIVE: 1 - CONTROL_SHARE})
    draw = partial(traffic.draw, random.Random(0))
    async with asked(worker, items, form) as (_, ask):
        callers = max(1, CALLERS // items)
        await closed_loop(draw, ask, callers, seconds / 4)
        results = await closed_loop(draw, ask, callers, seconds)
    last = max(one.at + one.took for one in results)
    return sum(one.answered for one in results) * items / last


async def overloaded(
    worker: Served, items: int, form: str, rate: float, control_deadline: float, seconds: float
) -> tuple[list[Result], dict[str, list[float]]]:
    """What became of calls that come at this rate; memory meanwhile, MiB by process."""
    shares = {CONTROL: CONTROL_SHARE, INTERACTIVE: 1 - CONTROL_SHARE}
    traffic = Traffic({OP: 1.0}, shares, {CONTROL: control_deadline, INTERACTIVE: DEADLINE})
    dice, memory = random.Random(1), dict[str, list[float]]()

    async def look() -> None:
        while True:
            for role, held in worker.memory().items():
                memory.setdefault(role, []).append(held)
            await asyncio.sleep(LOOK)

    async with asked(worker, items, form) as (_, ask):
        looking = asyncio.create_task(look())
        arrivals = poisson(rate, seconds, dice)
        results = await open_loop(arrivals, partial(traffic.draw, dice), ask, MOST_OPEN)
        looking.cancel()
    return results, memory


async def leg(
    worker: Served, cap: int, block_ms: int, items: int, form: str, seconds: float
) -> Leg:
    """What a worker can do, and what it does under ten times that."""
    can = await capacity(worker, items, form, max(6.0, seconds / 5))
    solo, _ = await alone(worker, items, 20, form)
    deadline, rate = 1.5 * solo + block_ms / 1000, LOAD * can / items
    if cap == CHOSEN:
        seconds = max(seconds, ENOUGH / (CONTROL_SHARE * rate))
    decoded = worker.total(DECODED)
    results, memory = await overloaded(worker, items, form, rate, deadline, seconds)
    control = [one for one in results if one.question.priority is CONTROL]
    late = [one for one in control if not one.in_time]
    return Leg(
        cap,
        block_ms,
        items,
        form,
        seconds,
        can,
        deadline,
        summary(results, seconds, {OP: items}),
        summary(control, seconds, {OP: items}),
        {role: trend(held[len(held) // 5 :]) for role, held in memory.items()},
        Counter(one.answer.reason or one.answer.outcome.value for one in late),
        worker.total(DECODED) - decoded,
    )


def costs(repository: Path, log: Path) -> dict[int, int]:
    """Milliseconds that a batch of each cap takes, a tenth added."""
    with served(repository, NAME, log=log) as worker:
        return {
            cap: math.ceil(1100 * asyncio.run(alone(worker, cap, 12))[1]) for cap in sorted(CAPS)
        }


def report(legs: Sequence[Leg]) -> str:
    """A table and verdicts."""
    lines = [
        "| cap, pictures | max_block_ms | pictures a call | as | s | can, pictures/s | "
        "goodput ÷ can | CONTROL deadline ms | CONTROL in time | of calls | "
        "refused after ms, p50 | p99 | files read ÷ answered | driver late ms, p99 | "
        "unsent | expired | MiB a minute, ± 2 SE: engine, front |",
        "|" + " --- |" * 17,
    ]
    for one in legs:
        looks = round(60 / LOOK)
        memory = ", ".join(one.memory[role].told(looks) for role in ("engine", "front"))
        cells = [
            f"{one.cap} | {one.block_ms} | {one.items} | {one.form} | {one.seconds:.0f}",
            f"{one.capacity:.1f}",
            f"{one.goodput:.2f} | {1000 * one.control_deadline:.0f} | {one.control.in_time:.4f}",
            f"{one.control.calls} | {one.everything.refusal_ms.get('p50', math.nan):.1f}",
            f"{one.refused_ms:.1f} | {one.read:.2f} | {one.everything.late_p99_ms:.1f}",
            f"{one.share(Outcome.UNSENT):.4f} | {one.share(Outcome.EXPIRED):.4f}",
            memory,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    chosen = [one for one in legs if one.cap == CHOSEN]
    lines.append("")
    for one in legs:
        if one.reasons:
            why = ", ".join(f"{n} {reason}" for reason, n in one.reasons.most_common())
            whose = f"at a cap of {one.cap}, {one.items} {one.form} a call"
            lines.append(f"CONTROL not in time {whose}: {why}. ")
    verdicts = {
        f"goodput is ≥ {GOODPUT} of what it can do": all(o.goodput >= GOODPUT for o in chosen),
        f"CONTROL is in time in ≥ {IN_TIME:.1%} of calls": all(
            one.control.in_time >= IN_TIME for one in chosen
        ),
        **{
            f"refusals of {form} pictures are told within {REFUSED_MS:g} ms, p99": all(
                one.refused_ms <= REFUSED_MS for one in chosen if one.form == form
            )
            for form in (RAW, JPEG)
        },
        f"the driver sent all but {UNSENT:.0%}": all(
            one.share(Outcome.UNSENT) <= UNSENT for one in chosen
        ),
        "memory does not grow, within two standard errors": all(
            slope.about_zero for one in chosen for slope in one.memory.values()
        ),
    }
    lines += ["", f"With a cap of {CHOSEN}:", ""]
    lines += [f"- {what}: {'PASS' if holds else 'FAIL'}" for what, holds in verdicts.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each leg that is judged")
    parser.add_argument("--width", type=int, default=768, help="the trunk's")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/overload.md")
    given = parser.parse_args()
    if given.seconds < 60 * LOOK:
        parser.error(f"--seconds: found {given.seconds:g}; allowed: at least {60 * LOOK:g}")
    with tempfile.TemporaryDirectory() as folder:
        repository, log = make_bundle(Path(folder), given.width), Path(folder, "log")
        block_ms, legs = costs(repository, log), list[Leg]()
        plan = [(cap, 1, RAW, given.seconds / 2) for cap in CAPS if cap != CHOSEN]
        plan += [(CHOSEN, items, RAW, given.seconds) for items in (1, ITEMS)]
        plan.append((CHOSEN, 1, JPEG, given.seconds))
        for cap, items, form, seconds in track(plan, "legs", transient=True):
            settings = {"max_block_ms": block_ms[cap]}
            with served(repository, NAME, log=log, **settings) as worker:
                legs.append(asyncio.run(leg(worker, cap, block_ms[cap], items, form, seconds)))
    text = heading("Ten times as much as a worker can do") + "\n" + report(legs)
    given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
