"""What the engine tells its fronts of what it has to do, so that they refuse what it would.

Pure bookkeeping, as `batching`, whose admission stays the last word: what is told is never more
than that reckons with, for what waits and runs now.
"""

from __future__ import annotations

from collections.abc import Hashable

from tectum_server.worker.engine.policy.batching import Batching
from tectum_server.worker.engine.policy.cost import Cost, CostModel
from tectum_server.worker.engine.policy.pace import MARGIN
from tectum_server.worker.engine.policy.reckoning import Ahead
from tectum_server.worker.jobs import Priority
from tectum_server.worker.outlook import Outlook, Price, Step

__all__ = ["outlook"]

_STEPS = 4
"""For each class, beside that for all of its calls: each is asked of all who wait."""


def outlook(policy: Batching, costs: CostModel, max_batch: int, now_ms: int) -> Outlook | None:
    """What waits and runs; None: nothing.

    Args:
        policy: knows who waits.
        costs: what batches take.
        max_batch: items in the largest.
        now_ms: now.
    """
    usual, cost = policy.usual, costs.cost(policy.usual)
    if not policy.busy or cost is None:
        return None
    steps = tuple(
        _step(policy.ahead(priority, due_ms, now_ms), usual, cost, priority, due_ms)
        for priority in Priority
        for due_ms in _moments(policy.dues(priority))
    )
    price = _price(*_named(usual), cost, max_batch)
    return Outlook(now_ms / 1000, price, MARGIN, steps, _prices(costs, max_batch))


def _step(ahead: Ahead, usual: Hashable, cost: Cost, priority: int, due_ms: int) -> Step:
    """In seconds, with what most of those who wait are told apart."""
    items = ahead.keys.pop(usual, 0)
    return Step(
        priority=priority,
        due=due_ms / 1000,
        first=ahead.first_ms / 1000,
        others=ahead.pace.usual(ahead.keys) / 1000,
        items=items,
        most=ahead.pace.most(cost),
        speed=ahead.speed,
    )


def _moments(dues: list[int]) -> list[int]:
    """The beginning of time, and some of these moments, the last among them."""
    apart = -(-len(dues) // _STEPS) or 1
    return [0, *dues[::-apart][::-1]]


def _prices(costs: CostModel, max_batch: int) -> tuple[Price, ...]:
    """What each operation takes of each model, by the cheapest of its kinds."""
    cheapest: dict[tuple[str, str], Cost] = {}
    for key in costs.known:
        cost, named = costs.cost(key), _named(key)
        if cost is not None:
            found = cheapest.setdefault(named, cost)
            if cost.of(1) * cost.least < found.of(1) * found.least:
                cheapest[named] = cost
    return tuple(_price(*named, cost, max_batch) for named, cost in cheapest.items())


def _named(key: Hashable) -> tuple[str, str]:
    """The model and the operation of a key; two empty words: it is of neither."""
    match key:
        case (str(model), str(operation), *_):
            return model, operation
    return "", ""


def _price(model: str, operation: str, cost: Cost, max_batch: int) -> Price:
    """In seconds."""
    fixed, each = cost.fixed_ms / 1000, cost.per_item_ms / 1000
    return Price(model, operation, fixed, each, cost.least, max_batch)
