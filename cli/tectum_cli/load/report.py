"""What came of a load: percentiles, goodput, refusals, and where the time went.

Rates count what was answered while it was measured, no matter when it was asked: of a server that
is asked for more than it can do, answers go on coming after the last call, and no longer span than
that of the calls themselves would tell what it can do. All else is of calls that were meant to be
sent in that time, whenever they ended.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tectum_cli.load.driving import Outcome, Result

__all__ = ["PERCENTILES", "Summary", "as_json", "lines", "percentile", "summary"]

PERCENTILES = (50, 90, 95, 99, 99.9)
_COLUMNS = ("in time", "p50 ms", "p99 ms", "refused", "rest")


def percentile(values: Sequence[float], percent: float) -> float:
    """The least that so many percent of the values do not exceed (nearest rank); NaN of none.

    Args:
        values: in any order.
        percent: 0 to 100.
    """
    ordered = sorted(values)
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(0, rank - 1)] if ordered else math.nan


@dataclass(frozen=True)
class Summary:
    """Of some calls."""

    calls: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    """Why, of those that were not answered, the commonest first."""
    goodput: float
    """Items of answers that came while it was measured, and by their deadlines, a second."""
    throughput: float
    """Items of answers that came while it was measured at all, a second."""
    in_time: float
    """Share of all calls that were answered in time; NaN of none."""
    latency_ms: dict[str, float]
    """Of what was answered, from when it was meant to be sent: by percentile, and `max`."""
    refusal_ms: dict[str, float]
    """How soon what was refused was told so, likewise."""
    where_ms: dict[str, float]
    """Means over what was answered: waiting to be sent (`driver`), in the server `queue`, `decode`,
    `compute` and what is left of its time (`server`), and on the way (`way`)."""
    mean_batch: float
    late_p99_ms: float
    """How late the driver itself was, of all calls."""


def summary(
    results: Iterable[Result], ends: float, items: Mapping[str, int], begins: float = 0.0
) -> Summary:
    """Summarise.

    Args:
        results: calls by when they were meant to come, seconds, warm-up included.
        ends: when measuring did.
        items: of a call, by what it asks.
        begins: when measuring did.
    """
    every = list(results)
    told = [one for one in every if one.at >= begins]
    came = [one for one in every if begins <= one.at + one.took <= ends]
    answered = [one for one in told if one.answered]
    refused = [one for one in told if one.answer.outcome is Outcome.REFUSED]
    in_time = sum(one.in_time for one in told)
    batches = [one.answer.batch for one in answered if one.answer.batch is not None]
    reasons = Counter(one.answer.reason for one in told if not one.answered)
    return Summary(
        calls=len(told),
        outcomes=dict(Counter(one.answer.outcome.value for one in told).most_common()),
        reasons=dict(reasons.most_common()),
        goodput=_items(came, items, lambda one: one.in_time) / (ends - begins),
        throughput=_items(came, items, lambda one: one.answered) / (ends - begins),
        in_time=in_time / len(told) if told else math.nan,
        latency_ms=_percentiles([one.took for one in answered]),
        refusal_ms=_percentiles([one.took for one in refused]),
        where_ms=_where(answered),
        mean_batch=_mean(batches),
        late_p99_ms=1000 * percentile([one.late for one in told], 99),
    )


def lines(found: Summary, by_class: dict[str, Summary]) -> Iterator[str]:
    """The report for a terminal, with a table of the classes if there are several."""
    counts = ", ".join(f"{count} {word}" for word, count in found.outcomes.items())
    yield (
        f"{found.throughput:.1f} items/s answered, {found.goodput:.1f} in time, "
        f"of {found.calls} calls: {counts or 'none'}"
    )
    if found.reasons:
        yield "not answered: " + ", ".join(f"{n} {why}" for why, n in found.reasons.items())
    if found.latency_ms:
        yield "latency ms: " + _told(found.latency_ms)
    if found.refusal_ms:
        yield "refused after ms: " + _told(found.refusal_ms)
    if found.where_ms:
        where = ", ".join(f"{part} {time:.1f}" for part, time in found.where_ms.items())
        yield f"where it went, ms: {where}; mean batch {found.mean_batch:.1f}"
    if len(by_class) > 1:
        yield ""
        yield f"{'':<14}{'calls':>8}" + "".join(f"{column:>9}" for column in _COLUMNS)
        for word, one in by_class.items():
            refused = one.outcomes.get(Outcome.REFUSED, 0)
            rest = one.calls - refused - one.outcomes.get(Outcome.ANSWERED, 0)
            median, slow = (one.latency_ms.get(name, math.nan) for name in ("p50", "p99"))
            yield (
                f"{word:<14}{one.calls:>8}{one.in_time:>9.4f}{median:>9.1f}{slow:>9.1f}"
                f"{refused:>9}{rest:>9}"
            )


def as_json(found: Any) -> dict[str, Any]:
    """A summary (a dataclass) as plain values; a number that is none is None."""
    return {key: _plain(value) for key, value in asdict(found).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _items(
    came: Iterable[Result], items: Mapping[str, int], counts: Callable[[Result], bool]
) -> int:
    """Of those that count."""
    return sum(items[one.question.op] for one in came if counts(one))


def _told(percentiles: dict[str, float]) -> str:
    return ", ".join(f"{name} {time:.1f}" for name, time in percentiles.items())


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    if not times:
        return {}
    found = {f"p{percent:g}": 1000 * percentile(times, percent) for percent in PERCENTILES}
    return {**found, "max": 1000 * max(times)}


def _where(answered: Sequence[Result]) -> dict[str, float]:
    """Parts of the mean latency, which they add up to; empty if the server tells no times."""
    told = [one for one in answered if one.answer.total is not None]
    if not told:
        return {}
    parts = {
        part: _mean([getattr(one.answer, part) or 0.0 for one in told])
        for part in ("queue", "decode", "compute")
    }
    total = _mean([one.answer.total or 0.0 for one in told])
    late = _mean([one.late for one in told])
    parts = {"driver": late, **parts, "server": total - sum(parts.values())}
    parts["way"] = _mean([one.took for one in told]) - late - total
    return {part: 1000 * time for part, time in parts.items()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
