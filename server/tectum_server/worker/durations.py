"""Seconds, and how the contract carries them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["Span", "covered", "duration", "seconds"]

Span: TypeAlias = tuple[float, float]
"""From when to when, seconds on one clock."""


def covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of them was: what overlaps counts once."""
    found, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        found += max(0.0, end - max(begin, until))
        until = max(until, end)
    return found


def duration(value: float) -> Duration:
    """Seconds as the contract carries them, to the nanosecond."""
    nanoseconds = round(value * 1e9)
    return Duration(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def seconds(message: Duration | Timestamp) -> float:
    """A duration's seconds, or a moment's since the epoch, as they stand: nothing is checked."""
    return message.seconds + message.nanos / 1e9
