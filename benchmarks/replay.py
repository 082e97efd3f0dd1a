"""What other limits would have done with the same arrivals, without a clock or an engine.

    python benchmarks/replay.py arrivals.jsonl --max-block-ms 10 20 40
    python benchmarks/replay.py --invent --load 0.5 1 2 10 --max-block-ms none 20 40

The file is a worker's (`TECTUM_RECORD=arrivals.jsonl tectum serve`); costs are what its batches
took. Invented arrivals are Poisson, of one operation, 1 % CONTROL, 80 % INTERACTIVE, 19 % BULK. One
row for each load and limit: goodput (requests answered by their deadlines, a second) beside what
the engine can do in the largest batches that the limit allows, and each class's share in time; of
live streams, how often each was answered and how old answers were.

Calls come when they came, and leave when they left. A stream films what it did, as far as the
engine heard of it: the frames that had a place, so that limits by which it could have been answered
more often show less than that. Its frames are there as soon as they are captured, without decoding
and transport, one waits at a time, and a stream that asks for two things of a frame is played as
two. Streams whose callers gave them one `x-request-id` are taken for one.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tectum_server.worker.engine.policy.batching import Batching
from tectum_server.worker.engine.policy.cost import Cost, CostModel, Preparation
from tectum_server.worker.engine.replay.arrivals import Arrival, Told
from tectum_server.worker.engine.replay.cameras import Camera, Stream
from tectum_server.worker.engine.replay.recording import read_recording
from tectum_server.worker.engine.replay.simulation import simulate
from tectum_server.worker.jobs import Priority

_MIX = {Priority.CONTROL: 1, Priority.INTERACTIVE: 80, Priority.BULK: 19}
_PATIENCE_MS = {Priority.INTERACTIVE: 500, Priority.BULK: 5000}


@dataclass(frozen=True)
class Limits:
    """What may be tried."""

    max_block_ms: int | None
    max_batch: int
    max_queued: int
    kept_share: float

    @property
    def block(self) -> str:
        """The first, in words."""
        return "none" if self.max_block_ms is None else str(self.max_block_ms)


def invented(cost: Cost, limits: Limits, load: float, seconds: int, seed: int) -> list[Arrival]:
    """Poisson arrivals at a multiple of the capacity, by time.

    CONTROL has 1.5 times what it costs alone, and `max_block_ms`, until its deadline.
    """
    draw, at_ms, arrivals = random.Random(seed), 0.0, list[Arrival]()
    rate = load * limits.max_batch / cost.of(limits.max_batch)
    patience = {
        **_PATIENCE_MS,
        Priority.CONTROL: round(1.5 * cost.of(1))
        + (limits.max_block_ms or cost_of_all(cost, limits)),
    }
    while (at_ms := at_ms + draw.expovariate(rate)) < 1000 * seconds:
        (priority,) = draw.choices(list(_MIX), list(_MIX.values()))
        arrivals.append(Arrival(int(at_ms), ("invented",), priority, patience[priority]))
    return arrivals


def cost_of_all(cost: Cost, limits: Limits) -> int:
    """Milliseconds of the largest batch."""
    return round(cost.of(limits.max_batch))


def capacity(cost: Cost, limits: Limits) -> float:
    """Items a second, in the largest batches that the limits allow."""
    most = limits.max_batch
    if limits.max_block_ms is not None:
        most = cost.within(limits.max_block_ms, most)
    return 1000 * most / cost.of(most)


@dataclass(frozen=True)
class Played:
    """What became of all that came."""

    calls: Sequence[Told]
    streams: Sequence[Stream]
    took: float
    """Seconds to say so."""

    @property
    def seconds(self) -> float:
        """From the first moment to the last at which something came."""
        last = [one.arrival.at_ms for one in self.calls]
        last += [one.camera.captured_ms(one.camera.frames - 1) for one in self.streams]
        return max(last, default=0) / 1000 or 1.0


def played(
    arrivals: Sequence[Arrival],
    costs: Mapping[Hashable, Cost],
    limits: Limits,
    cameras: Sequence[Camera] = (),
) -> Played:
    """Let all come; what is not in `costs` takes a millisecond."""
    policy = Batching(
        limits.max_queued, limits.max_batch, costs.get, limits.max_block_ms, limits.kept_share
    )
    unknown, began = Cost(1.0, 0.0), time.perf_counter()
    streams = [Stream(one) for one in cameras]

    def takes_ms(key: Hashable, items: int) -> float:
        return costs.get(key, unknown).of(items)

    def prepares_ms(one: Preparation) -> float:
        return takes_ms(one.kind, one.size)

    told = simulate(policy, arrivals, takes_ms, streams=streams, prepares_ms=prepares_ms)
    return Played(told, streams, time.perf_counter() - began)


def row(load: str, limits: Limits, found: Played, could: float | None) -> str:
    """One line of the table."""
    told = found.calls
    good = sum(one.in_time for one in told) / found.seconds
    cells = [load, limits.block, str(len(told)), f"{good:.1f}"]
    cells.append("" if could is None else f"{good / could:.3f}")
    for priority in Priority:
        own = [one for one in told if one.arrival.priority == priority]
        admitted = [one for one in own if one.latency_ms is not None]
        share = f"{sum(one.in_time for one in own) / len(own):.4f}" if own else "–"
        cells += [share, str(sum(not one.in_time for one in admitted)), _p99(admitted)]
    cells += [str(len(found.streams)), *_streamed(found)]
    return "| " + " | ".join([*cells, f"{1000 * found.took:.0f}"]) + " |"


def _streamed(found: Played) -> list[str]:
    """Answers a second of the stream that had fewest and most, and their frames' ages."""
    rates = sorted(len(one.answers) / found.seconds for one in found.streams)
    ages = [one.answered_ms - one.captured_ms for stream in found.streams for one in stream.answers]
    return [f"{rates[0]:.2f}–{rates[-1]:.2f}" if rates else "–", _p99_of(ages)]


def _p99(admitted: Sequence[Told]) -> str:
    return _p99_of([one.latency_ms for one in admitted if one.latency_ms is not None])


def _p99_of(times: Sequence[int]) -> str:
    return str(sorted(times)[int(0.99 * (len(times) - 1))]) if times else "–"


def heading() -> Iterator[str]:
    """The table's first lines."""
    columns = ["load", "max_block_ms", "requests", "goodput/s", "÷ capacity"]
    for priority in Priority:
        name = priority.name
        columns += [f"{name} in time", "answered late", "p99 ms"]
    columns += ["streams", "each answered/s", "age p99 ms", "played in ms"]
    yield "| " + " | ".join(columns) + " |"
    yield "| " + " | ".join(["---"] * len(columns)) + " |"


def main() -> None:
    """Play, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path, nargs="?", help="a worker's")
    parser.add_argument("--invent", action="store_true", help="arrivals instead of a recording")
    parser.add_argument("--load", type=float, nargs="+", default=[1.0], help="times the capacity")
    parser.add_argument("--cost", type=float, nargs=2, default=[3.0, 4.0], metavar="MS",
                        help="of an invented batch: fixed, and for each item")  # fmt: skip
    parser.add_argument("--seconds", type=int, default=60, help="of invented arrivals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-block-ms", nargs="+", default=["none"], metavar="MS|none")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-queued-items", type=int, default=256)
    parser.add_argument("--kept-share", type=float, default=0.05)
    given = parser.parse_args()
    if given.invent == (given.recording is not None):
        parser.error("either a recording or --invent")
    print("\n".join(heading()))
    for word in given.max_block_ms:
        block = None if word == "none" else int(word)
        limits = Limits(block, given.max_batch, given.max_queued_items, given.kept_share)
        if given.invent:
            cost = Cost(*given.cost)
            for load in given.load:
                arrivals = invented(cost, limits, load, given.seconds, given.seed)
                found = played(arrivals, {"invented": cost}, limits)
                print(row(f"{load:g}", limits, found, capacity(cost, limits)))
            continue
        try:
            recording, learnt = read_recording(given.recording), CostModel()
        except (OSError, ValueError) as error:
            parser.error(str(error))
        for batch in recording.batches:
            learnt.observe(*batch)
        known = {key: learnt.cost(key) for key in learnt.known}
        costs = {key: one for key, one in known.items() if one is not None}
        found = played(recording.arrivals, costs, limits, recording.cameras)
        print(row("recorded", limits, found, None))


if __name__ == "__main__":
    main()
