"""Seconds in Python, Duration and Timestamp on the wire.

Rounded to whole nanoseconds, which is all the wire can say. Knows no request and no clock.
"""

import math

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tectum.errors import invalid

_NANOSECONDS = 1_000_000_000
_LATEST = 253_402_300_800.0
"""Timestamp ends with the year 9999, in seconds since 1970."""
_LONGEST = 315_576_000_000.0
"""Duration ends at about 10,000 years, in seconds."""


def seconds(duration: Duration) -> float:
    """A duration off the wire, in seconds."""
    return duration.seconds + duration.nanos / _NANOSECONDS


def timestamp_seconds(moment: Timestamp) -> float:
    """A moment off the wire, in seconds since 1970."""
    return moment.seconds + moment.nanos / _NANOSECONDS


def duration(value: float, field: str) -> Duration:
    """A positive span of time for the wire.

    Args:
        value: Seconds, above 0.
        field: Where it stands in the request, for the error.

    Raises:
        InvalidInput: not a finite number above 0, or above 10,000 years.
    """
    if not (math.isfinite(value) and 0 < value <= _LONGEST):
        raise invalid(field, f"found {value!r} s; allowed: a finite number of seconds above 0")
    whole, rest = _split(value)
    return Duration(seconds=whole, nanos=rest)


def signed_duration(value: float) -> Duration:
    """A span of time for the wire, either way."""
    whole, rest = _split(abs(value))
    sign = 1 if value >= 0 else -1
    return Duration(seconds=sign * whole, nanos=sign * rest)


def timestamp(value: float, field: str) -> Timestamp:
    """A moment for the wire.

    Args:
        value: Seconds on any one clock, at least 0; for streams, since 1970.
        field: Where it stands in the request, for the error.

    Raises:
        InvalidInput: not a finite number of at least 0, or after the year 9999.
    """
    if not (math.isfinite(value) and 0 <= value < _LATEST):
        raise invalid(field, f"found {value!r} s; allowed: 0 to the end of the year 9999")
    whole, rest = _split(value)
    return Timestamp(seconds=whole, nanos=rest)


def _split(value: float) -> tuple[int, int]:
    """Whole seconds and the nearest nanoseconds of a value of at least 0.

    The fraction is taken off first, which is exact; in one product they would share 53 bits,
    and today's time would be told to 256 ns.
    """
    fraction, whole = math.modf(value)
    carried, nanos = divmod(round(fraction * _NANOSECONDS), _NANOSECONDS)
    return int(whole) + carried, nanos
