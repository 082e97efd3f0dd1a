"""What an engine has before it, as it tells its fronts, and what follows for a call that comes now.

Pure: whoever asks says what the time is. Moments are seconds on the system's monotonic clock, which
all processes of a worker share. The arithmetic is that of the engine's admission (`engine.pace`):
for what waits mostly exactly, for anything else from below. The engine judges whom it lets pass. A
moment does not move as time goes by, so that what was told counts for less the older it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

__all__ = ["Asked", "Outlook", "Price", "Step", "done"]

_STALE = 0.5
"""Seconds after which nothing follows from what was told: five beats of an engine that is well."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """What goes before some calls, in seconds of the engine's."""

    priority: int
    """Before those of this class."""
    due: float
    """That are due then or later."""
    first: float
    """What runs, and who overtakes."""
    others: float
    """Of what waits all but items of the kind that is told of in the outlook."""
    items: int
    """Those."""
    most: int
    """Of which so many are in the largest batch."""
    speed: float
    """The share of the engine that the class may count on while it waits."""


class Price(msgspec.Struct, frozen=True, array_like=True):
    """What items of an operation take, in seconds."""

    model: str
    """As `name@version`."""
    operation: str
    fixed: float
    """A batch, whatever is in it."""
    each: float
    """An item, beside that."""
    least: float
    """The fastest batch of late took this share of it."""
    most: int
    """Items in the largest batch."""

    def batches(self, items: int, most: int) -> float:
        """So many, in batches of so many at most."""
        return -(-items // most) * self.fixed + items * self.each

    def among_others(self, items: int) -> float:
        """So many at best, in batches that others fill."""
        return items * (self.fixed / self.most + self.each) * self.least


class Outlook(msgspec.Struct, frozen=True):
    """What an engine that has something to do tells."""

    at: float
    """When it was so."""
    usual: Price
    """Of what most of those who wait are."""
    margin: float
    """Of what a queue of that takes, added to it where it is longer than a batch."""
    steps: tuple[Step, ...]
    """For each class one for all calls, and some for those that are due later."""
    prices: tuple[Price, ...]
    """Each model's and operation's; none: nothing is known of it yet."""

    def step(self, asked: Asked) -> Step | None:
        """What goes before a call at least; None: nobody knows."""
        found = [s for s in self.steps if s.priority == asked.priority and s.due <= asked.deadline]
        return max(found, key=lambda step: step.due, default=None)

    def price(self, model: str, operation: str) -> Price | None:
        """What it told of that."""
        for one in self.prices:
            if (one.model, one.operation) == (model, operation):
                return one
        return None

    def is_usual(self, model: str, operation: str) -> bool:
        """Whether that is what most of those who wait are."""
        return (self.usual.model, self.usual.operation) == (model, operation)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks of an engine."""

    model: str
    """As `name@version`."""
    items: Mapping[str, int]
    """How many, by operation."""
    priority: int
    deadline: float

    def goes_before(self, other: Asked) -> bool:
        """Whether the engine takes it first, if it has both."""
        return (self.priority, self.deadline) <= (other.priority, other.deadline)


def done(
    asked: Asked,
    outlooks: Sequence[Outlook | None],
    unheard: Iterable[tuple[Asked, float | None]],
    now: float,
) -> float | None:
    """When a call that comes now is answered at the earliest; None: nobody can say.

    Args:
        asked: what the call asks for.
        outlooks: what each engine that may compute it has told; None: nothing.
        unheard: what other calls of the same front ask for, and when each was sent to an engine;
            None: not yet. What was sent before an engine told is in what it told.
        now: now.
    """
    known = [one for one in outlooks if one is not None and now - one.at < _STALE]
    if len(known) < len(outlooks):
        return None
    before = [(one, sent) for one, sent in unheard if one.goes_before(asked)]
    found = [_done(asked, one, before, len(known), now) for one in known]
    return None if None in found else min((one for one in found if one is not None), default=None)


def _done(
    asked: Asked,
    outlook: Outlook,
    before: Iterable[tuple[Asked, float | None]],
    engines: int,
    now: float,
) -> float | None:
    """The same of one engine, which does its part of what others ask for."""
    step = outlook.step(asked)
    own = {name: _best(outlook, asked.model, name, count) for name, count in asked.items.items()}
    # What is too late even alone is let in now and then, to see: the engine knows when.
    if step is None or now + max(own.values(), default=0.0) > asked.deadline:
        return None
    new = [one for one, sent in before if sent is None or sent > outlook.at]
    usual, others = 0, 0.0
    for one in new:
        for operation, count in one.items.items():
            if outlook.is_usual(one.model, operation):
                usual += count
            elif (price := outlook.price(one.model, operation)) is not None:
                others += price.among_others(count)
    usual, others = usual // engines, others / engines
    answered = (
        _waits(outlook, step, asked, operation, usual, others) / step.speed + takes
        for operation, takes in own.items()
    )
    return outlook.at + max(answered, default=0.0)


def _waits(
    outlook: Outlook, step: Step, asked: Asked, operation: str, usual: int, others: float
) -> float:
    """The engine's seconds before items of an operation, with so much more than was told."""
    price, others = outlook.usual, step.others + others
    if not outlook.is_usual(asked.model, operation):
        queue = others + price.batches(step.items + usual, step.most)
        found = outlook.price(asked.model, operation)
        shared = 0.0 if found is None else found.fixed  # with such as wait already
        return step.first + max(queue - shared, 0.0)
    own = asked.items[operation]
    count = step.items + usual + own
    queue = others + price.batches(count, step.most)
    if count > step.most:
        filled = -(-count // step.most) * step.most
        queue = (1 + outlook.margin) * (others + price.batches(filled, step.most))
    return step.first + max(queue - price.batches(own, step.most), 0.0)


def _best(outlook: Outlook, model: str, operation: str, items: int) -> float:
    """What so many take at best, alone."""
    price = outlook.price(model, operation)
    return 0.0 if price is None else price.batches(items, price.most) * price.least
