"""What other limits would have done with the same arrivals, without a clock or an engine.

    python benchmarks/replay.py arrivals.jsonl --max-block-ms 10 20 40
    python benchmarks/replay.py --invent --load 0.5 1 2 10 --max-block-ms none 20 40

The file is a worker's (`TECTUM_RECORD=arrivals.jsonl tectum serve`); costs are what its batches
took. Invented arrivals are Poisson, of one operation, 1 % CONTROL, 80 % INTERACTIVE, 19 % BULK. One
row for each load and limit: goodput (requests answered by their deadlines, a second) beside what
the engine can do in the largest batches that the limit allows, and each class's share in time.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tectum_server.worker.engine.policy.batching import Batching
from tectum_server.worker.engine.policy.cost import Cost, CostModel
from tectum_server.worker.engine.replay.arrivals import Arrival, Told
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


def played(
    arrivals: Sequence[Arrival], costs: dict[Hashable, Cost], limits: Limits
) -> tuple[list[Told], float]:
    """What became of each, and the seconds that it took to say so."""
    policy = Batching(
        limits.max_queued, limits.max_batch, costs.get, limits.max_block_ms, limits.kept_share
    )
    unknown, began = Cost(1.0, 0.0), time.perf_counter()
    told = simulate(policy, arrivals, lambda key, items: costs.get(key, unknown).of(items))
    return told, time.perf_counter() - began


def row(load: str, limits: Limits, told: Sequence[Told], could: float | None, took: float) -> str:
    """One line of the table."""
    seconds = max((one.arrival.at_ms for one in told), default=0) / 1000 or 1.0
    good = sum(one.in_time for one in told) / seconds
    cells = [load, limits.block, str(len(told)), f"{good:.1f}"]
    cells.append("" if could is None else f"{good / could:.3f}")
    for priority in Priority:
        own = [one for one in told if one.arrival.priority == priority]
        admitted = [one for one in own if one.latency_ms is not None]
        share = f"{sum(one.in_time for one in own) / len(own):.4f}" if own else "–"
        cells += [share, str(sum(not one.in_time for one in admitted)), _p99(admitted)]
    return "| " + " | ".join([*cells, f"{1000 * took:.0f}"]) + " |"


def _p99(admitted: Sequence[Told]) -> str:
    times = sorted(one.latency_ms for one in admitted if one.latency_ms is not None)
    return str(times[int(0.99 * (len(times) - 1))]) if times else "–"


def heading() -> Iterator[str]:
    """The table's first lines."""
    columns = ["load", "max_block_ms", "requests", "goodput/s", "÷ capacity"]
    for priority in Priority:
        name = priority.name
        columns += [f"{name} in time", "answered late", "p99 ms"]
    columns.append("played in ms")
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
                told, took = played(arrivals, {"invented": cost}, limits)
                print(row(f"{load:g}", limits, told, capacity(cost, limits), took))
            continue
        recording, learnt = read_recording(given.recording), CostModel()
        for batch in recording.batches:
            learnt.observe(*batch)
        found = {key: learnt.cost(key) for key in learnt.known}
        costs = {key: one for key, one in found.items() if one is not None}
        told, took = played(recording.arrivals, costs, limits)
        print(row("recorded", limits, told, None, took))


if __name__ == "__main__":
    main()
