"""Worker, SDK and gateway each keep a table over the contract's reasons; together they are one.

The rows are the design's: what a condition is called on the wire, what the SDK raises, what
REST answers. A reason that somebody adds to the contract fails here until all three know it.
"""

from __future__ import annotations

import pytest
from google.rpc import code_pb2

import tectum
from tectum.errors import CLASS_BY_REASON
from tectum.v1 import errors_pb2
from tectum_server.gateway.problems import STATUS_BY_REASON
from tectum_server.worker.failure import CODES, RETRYABLE

ROWS: dict[str, tuple[int, type[tectum.TectumError], int, bool]] = {
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
}


def reason(name: str) -> errors_pb2.ErrorReason.ValueType:
    return errors_pb2.ErrorReason.Value(f"ERROR_REASON_{name}")


def test_every_reason_of_the_contract_has_a_row() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118

    assert contract - {"UNSPECIFIED"} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_worker_sdk_and_gateway_agree_on(name: str) -> None:
    code, error, status, retryable = ROWS[name]

    assert CODES[reason(name)] == code
    assert CLASS_BY_REASON[reason(name)] is error
    assert STATUS_BY_REASON[reason(name)] == status
    assert (reason(name) in RETRYABLE) == retryable


def test_no_table_knows_a_reason_that_the_contract_does_not() -> None:
    known = {reason(name) for name in ROWS}

    assert set(CODES) == known
    assert set(CLASS_BY_REASON) == known
    assert set(STATUS_BY_REASON) == known
