"""Which connections still live: who is silent is asked, and who does not answer is cut off.

A robot that vanished (its battery, its network) says no goodbye; until it is noticed it keeps its
stream's place. TCP alone takes hours to find out.
"""

from __future__ import annotations

__all__ = ["options"]

_EVERY, _WITHIN = 30.0, 20.0
"""Seconds of silence after which a connection is asked whether it lives, and for its answer: more
than the SDK takes, for an answer may lie behind a picture on a thin link."""
_CLIENTS_EVERY = 5.0
"""Clients may ask that of the worker as often; the SDK does every 10 s."""
_IDLE = 600.0
"""Seconds without a call after which a connection is closed. A client opens another one when it
needs it, and does not notice."""


def options() -> list[tuple[str, int]]:
    """As a grpc server takes them."""
    return [
        ("grpc.keepalive_time_ms", _milliseconds(_EVERY)),
        ("grpc.keepalive_timeout_ms", _milliseconds(_WITHIN)),
        # grpc holds its pings to this one, and that is a minute.
        ("grpc.http2.ping_timeout_ms", _milliseconds(_WITHIN)),
        # Also while nothing is asked, and however often nothing comes but answers to that.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(_CLIENTS_EVERY)),
        ("grpc.max_connection_idle_ms", _milliseconds(_IDLE)),
    ]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
