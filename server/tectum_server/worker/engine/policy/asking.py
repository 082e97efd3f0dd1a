"""When whoever runs next is asked for what is newer, and how often, while a batch runs.

A live camera's frame may wait for long where there are many of them, so places are asked for a
newer one shortly before they run. Each newer frame costs a decoding, and perhaps a preparation: it
is asked for again only when some time has passed, and as far as it can be made ready without
keeping the engine.

Pure bookkeeping, as `batching`. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "NEW_MS",
    "PACE_MS",
    "Needs",
    "affordable",
    "again_after",
    "ask_after",
    "asks_again",
    "keeps",
    "waits",
]

PACE_MS = 100.0
"""From one asking of a place to the next at least."""
NEW_MS = 125.0
"""So long after it was asked for what a place has is new enough for its batch to begin."""
_LONG_MS = 500.0
"""From so much on a batch's members are asked now and then; those of a shorter one give what is
newer by themselves."""
_WAITS, _SHORT_MS = 0.05, 200.0
"""Of what a batch and the one before it take, that it waits for its members' answers at most; not
at all if both are short."""
_ASK_AT, _AHEAD_MS = 0.5, 250.0
"""From so much of a batch on, but not longer before its end, whoever runs next is asked. Costs are
medians, so that it may be over much earlier."""
_TIMES = 2.0
"""Of what it took to answer, from one asking to the next: who reads pictures does other things."""
_PART = 0.25
"""Of the time for which a batch's next ones are asked already, from one asking to the next: of a
batch that takes far longer than expected no place is asked without end."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is to be prepared of a place."""

    takes_ms: float = 0.0
    """What preparing its content takes; 0: nothing has to be."""
    lacking: bool = False
    """Whether that is still to be done, with the content that it has."""


def asks_again(expected_ms: float | None) -> bool:
    """Whether the members of the batch that runs next give what is newer until it does.

    Args:
        expected_ms: what the next one takes; None: nobody knows yet.
    """
    return expected_ms is None or expected_ms < _LONG_MS


def ask_after(expected_ms: float | None) -> float:
    """From a batch's beginning until whoever runs next is asked.

    Args:
        expected_ms: what the batch takes; None: nobody knows yet.
    """
    if expected_ms is None:
        return 0.0
    return max(_ASK_AT * expected_ms, expected_ms - _AHEAD_MS)


def again_after(asked_for_ms: float, took_ms: float, left_ms: float) -> float:
    """From one asking of a place to the next, while a batch runs.

    Args:
        asked_for_ms: since whoever runs after it is asked.
        took_ms: until the place had answered, the last time.
        left_ms: until the batch should have ended. Whoever could not answer by then would be
            waited for.
    """
    pace_ms = PACE_MS if took_ms <= left_ms else NEW_MS
    return max(pace_ms, _TIMES * took_ms, _PART * asked_for_ms)


def waits(expected_ms: float | None, ran_ms: float = 0.0, spare_ms: float = float("inf")) -> float:
    """How long a batch waits for its members' answers before it begins; 0: it does not.

    Args:
        expected_ms: what it takes; None: nobody knows yet.
        ran_ms: what the one before it took, which may have ended long before it was expected to.
        spare_ms: what is left before somebody's answer would be too late.
    """
    both_ms = (expected_ms or 0.0) + ran_ms
    if expected_ms is None or both_ms < _SHORT_MS:
        return 0.0
    return max(0.0, min(_WAITS * both_ms, spare_ms))


def keeps(expected_ms: float | None) -> float:
    """How long a batch may keep the engine for the preparation of what it was asked for anew.

    Args:
        expected_ms: what it takes; None: nobody knows yet.
    """
    return _WAITS * (expected_ms or 0.0)


def affordable(places: Sequence[Needs], due: Sequence[bool], spare_ms: float) -> list[bool]:
    """Of each place that runs next whether it is asked anew.

    Who needs nothing is. Of the others so many, in order, as can be prepared once more in the time
    that is left, beside what is still lacking; who lacks something itself is prepared first.

    Args:
        places: in order of service.
        due: whether each was asked long enough ago.
        spare_ms: until they run, and for which they may keep the engine then.
    """
    left_ms = spare_ms - sum(place.takes_ms for place in places if place.lacking)
    found = []
    for place, now in zip(places, due, strict=True):
        fits = not place.takes_ms or place.takes_ms <= left_ms
        asked = now and fits and not place.lacking
        left_ms -= place.takes_ms if asked else 0.0
        found.append(asked)
    return found
