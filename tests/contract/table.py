"""The design's table of errors, one row a reason: the one that every room's tests share.

The contract's tests hold worker, SDK and gateway to it; the journeys provoke its rows over REST.
"""

from __future__ import annotations

from typing import NamedTuple

from google.rpc import code_pb2

import tectum


class Row(NamedTuple):
    """What a condition is called on the wire, what the SDK raises, what REST answers."""

    code: int
    error: type[tectum.TectumError]
    status: int
    retryable: bool


ROWS = {
    name: Row(*row)
    for name, row in {
        "FIELD_MISSING": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "FIELD_OUT_OF_RANGE": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "SHAPE_MISMATCH": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "NOT_FINITE": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "TOO_MANY_ITEMS": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "IMAGE_UNREADABLE": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "IMAGE_UNSUPPORTED": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "IMAGE_TOO_LARGE": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "INTERVAL_MISMATCH": (code_pb2.INVALID_ARGUMENT, tectum.InvalidInput, 422, False),
        "MESSAGE_TOO_LARGE": (code_pb2.RESOURCE_EXHAUSTED, tectum.TooLarge, 413, False),
        "QUEUE_FULL": (code_pb2.RESOURCE_EXHAUSTED, tectum.Overloaded, 429, True),
        "DEADLINE_UNREACHABLE": (code_pb2.RESOURCE_EXHAUSTED, tectum.Overloaded, 429, True),
        "DEADLINE_INFEASIBLE": (code_pb2.RESOURCE_EXHAUSTED, tectum.DeadlineTooShort, 429, False),
        "DEADLINE_PASSED": (code_pb2.DEADLINE_EXCEEDED, tectum.DeadlineExceeded, 504, False),
        "MODEL_NOT_FOUND": (code_pb2.NOT_FOUND, tectum.NotFound, 404, False),
        "CAPABILITY_MISSING": (code_pb2.FAILED_PRECONDITION, tectum.CapabilityMissing, 409, False),
        "SPACE_MISMATCH": (code_pb2.FAILED_PRECONDITION, tectum.SpaceMismatch, 409, False),
        "BUNDLE_REJECTED": (code_pb2.FAILED_PRECONDITION, tectum.BundleRejected, 409, False),
        "DRAINING": (code_pb2.UNAVAILABLE, tectum.Unavailable, 503, True),
        "ENGINE_UNAVAILABLE": (code_pb2.UNAVAILABLE, tectum.Unavailable, 503, True),
        "CREDENTIALS_INVALID": (code_pb2.UNAUTHENTICATED, tectum.Unauthenticated, 401, False),
        "PERMISSION_MISSING": (code_pb2.PERMISSION_DENIED, tectum.PermissionDenied, 403, False),
        "CANCELLED": (code_pb2.CANCELLED, tectum.Cancelled, 499, False),
        "INTERNAL": (code_pb2.INTERNAL, tectum.InternalError, 500, False),
        "MODEL_LOADING": (code_pb2.UNAVAILABLE, tectum.Unavailable, 503, True),
    }.items()
}
