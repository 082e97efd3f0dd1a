"""Every way a call can fail inside the worker, and the one table that says its gRPC code.

Raised anywhere between the wire and the engine; turned into a google.rpc.Status at the
wire alone (`front.status`). The engine shares it, so it knows google.rpc's codes, not grpc.
"""

from __future__ import annotations

from google.rpc import code_pb2

from tectum.v1 import errors_pb2
from tectum.v1.errors_pb2 import ErrorReason

__all__ = ["CODES", "RETRYABLE", "Failure", "reason_name", "unreachable"]

CODES: dict[ErrorReason.ValueType, code_pb2.Code.ValueType] = {
    errors_pb2.ERROR_REASON_FIELD_MISSING: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_SHAPE_MISMATCH: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_NOT_FINITE: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_TOO_MANY_ITEMS: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_IMAGE_UNREADABLE: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_IMAGE_UNSUPPORTED: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_INTERVAL_MISMATCH: code_pb2.INVALID_ARGUMENT,
    errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE: code_pb2.RESOURCE_EXHAUSTED,
    errors_pb2.ERROR_REASON_QUEUE_FULL: code_pb2.RESOURCE_EXHAUSTED,
    errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE: code_pb2.RESOURCE_EXHAUSTED,
    errors_pb2.ERROR_REASON_DEADLINE_INFEASIBLE: code_pb2.RESOURCE_EXHAUSTED,
    errors_pb2.ERROR_REASON_DEADLINE_PASSED: code_pb2.DEADLINE_EXCEEDED,
    errors_pb2.ERROR_REASON_MODEL_NOT_FOUND: code_pb2.NOT_FOUND,
    errors_pb2.ERROR_REASON_CAPABILITY_MISSING: code_pb2.FAILED_PRECONDITION,
    errors_pb2.ERROR_REASON_SPACE_MISMATCH: code_pb2.FAILED_PRECONDITION,
    errors_pb2.ERROR_REASON_BUNDLE_REJECTED: code_pb2.FAILED_PRECONDITION,
    errors_pb2.ERROR_REASON_DRAINING: code_pb2.UNAVAILABLE,
    errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE: code_pb2.UNAVAILABLE,
    errors_pb2.ERROR_REASON_CREDENTIALS_INVALID: code_pb2.UNAUTHENTICATED,
    errors_pb2.ERROR_REASON_PERMISSION_MISSING: code_pb2.PERMISSION_DENIED,
    errors_pb2.ERROR_REASON_CANCELLED: code_pb2.CANCELLED,
    errors_pb2.ERROR_REASON_INTERNAL: code_pb2.INTERNAL,
    errors_pb2.ERROR_REASON_MODEL_LOADING: code_pb2.UNAVAILABLE,
}
"""Total over ErrorReason but for UNSPECIFIED; a test holds it so."""

RETRYABLE: dict[ErrorReason.ValueType, float] = {
    errors_pb2.ERROR_REASON_QUEUE_FULL: 0.1,
    errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE: 0.1,
    errors_pb2.ERROR_REASON_DRAINING: 1.0,
    errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE: 1.0,
    errors_pb2.ERROR_REASON_MODEL_LOADING: 1.0,
}
"""Reasons that come with RetryInfo, and the delay in seconds where nothing better is known."""


def reason_name(reason: ErrorReason.ValueType) -> str:
    """As ErrorInfo.reason carries it: without the prefix."""
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


class Failure(Exception):
    """A call, or one item of it, that cannot be answered.

    Args:
        reason: why.
        message: what was found and what was allowed, for people.
        field: path into the request, such as `images[3]`; empty: the call as a whole.
        retry_after: seconds until a retry can help; None: RETRYABLE's default, if it has one.
        violations: (path, what is wrong) for every bad field, when there are several.
    """

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        field: str = "",
        retry_after: float | None = None,
        violations: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.violations = violations

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    @property
    def code(self) -> code_pb2.Code.ValueType:
        """The google.rpc.Code of the whole call."""
        return CODES[self.reason]

    @property
    def retry_delay(self) -> float | None:
        """Seconds for RetryInfo; None: retrying the same cannot help."""
        default = RETRYABLE.get(self.reason)
        return default if default is None or self.retry_after is None else self.retry_after


def unreachable(left_ms: int, takes_ms: int, after_ms: int) -> Failure:
    """A deadline that cannot be met for what waits, whoever knows first.

    Args:
        left_ms: until it.
        takes_ms: until the answer.
        after_ms: until another try may be in time.
    """
    return Failure(
        errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE,
        f"the deadline is {left_ms} ms away; with what waits now it takes about {takes_ms} ms",
        retry_after=after_ms / 1000,
    )
