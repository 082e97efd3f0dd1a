"""Seconds, and how the contract carries them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["duration", "seconds"]


def duration(value: float) -> Duration:
    """Seconds as the contract carries them, to the nanosecond."""
    nanoseconds = round(value * 1e9)
    return Duration(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def seconds(message: Duration | Timestamp) -> float:
    """A duration's seconds, or a moment's since the epoch, as they stand: nothing is checked."""
    return message.seconds + message.nanos / 1e9
