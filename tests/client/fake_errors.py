"""The worker's refusals, as a test wants them: each reason with its full google.rpc.Status."""

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from tectum.v1 import errors_pb2

R = errors_pb2.ErrorReason

CODE_BY_REASON = {
    R.ERROR_REASON_FIELD_MISSING: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_FIELD_OUT_OF_RANGE: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_SHAPE_MISMATCH: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_NOT_FINITE: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_TOO_MANY_ITEMS: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_IMAGE_UNREADABLE: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_IMAGE_UNSUPPORTED: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_IMAGE_TOO_LARGE: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_INTERVAL_MISMATCH: StatusCode.INVALID_ARGUMENT,
    R.ERROR_REASON_MESSAGE_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    R.ERROR_REASON_QUEUE_FULL: StatusCode.RESOURCE_EXHAUSTED,
    R.ERROR_REASON_DEADLINE_UNREACHABLE: StatusCode.RESOURCE_EXHAUSTED,
    R.ERROR_REASON_DEADLINE_INFEASIBLE: StatusCode.RESOURCE_EXHAUSTED,
    R.ERROR_REASON_DEADLINE_PASSED: StatusCode.DEADLINE_EXCEEDED,
    R.ERROR_REASON_MODEL_NOT_FOUND: StatusCode.NOT_FOUND,
    R.ERROR_REASON_CAPABILITY_MISSING: StatusCode.FAILED_PRECONDITION,
    R.ERROR_REASON_SPACE_MISMATCH: StatusCode.FAILED_PRECONDITION,
    R.ERROR_REASON_BUNDLE_REJECTED: StatusCode.FAILED_PRECONDITION,
    R.ERROR_REASON_DRAINING: StatusCode.UNAVAILABLE,
    R.ERROR_REASON_ENGINE_UNAVAILABLE: StatusCode.UNAVAILABLE,
    R.ERROR_REASON_CREDENTIALS_INVALID: StatusCode.UNAUTHENTICATED,
    R.ERROR_REASON_PERMISSION_MISSING: StatusCode.PERMISSION_DENIED,
    R.ERROR_REASON_CANCELLED: StatusCode.CANCELLED,
    R.ERROR_REASON_INTERNAL: StatusCode.INTERNAL,
    R.ERROR_REASON_MODEL_LOADING: StatusCode.UNAVAILABLE,
}
"""What errors.proto says beside each reason."""

RETRYABLE = {
    R.ERROR_REASON_QUEUE_FULL,
    R.ERROR_REASON_DEADLINE_UNREACHABLE,
    R.ERROR_REASON_DRAINING,
    R.ERROR_REASON_ENGINE_UNAVAILABLE,
    R.ERROR_REASON_MODEL_LOADING,
}
"""The reasons that errors.proto says come with RetryInfo."""

REASONS = sorted(CODE_BY_REASON)
"""Every reason a worker may send."""


def name(reason: int) -> str:
    """A reason as it travels: without its prefix."""
    return R.Name(R.ValueType(reason)).removeprefix("ERROR_REASON_")


def duration(seconds: float) -> Duration:
    """Seconds for the wire."""
    whole, rest = divmod(round(seconds * 1e9), 10**9)
    return Duration(seconds=whole, nanos=rest)


def status(
    reason: int,
    *,
    retry_after: float | None = None,
    violations: Sequence[tuple[str, str]] = (),
    message: str = "",
) -> status_pb2.Status:
    """The full status of a refusal."""
    details = [error_details_pb2.ErrorInfo(reason=name(reason), domain="tectum.dev")]
    if violations:
        field_violation = error_details_pb2.BadRequest.FieldViolation
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[field_violation(field=f, description=d) for f, d in violations]
            )
        )
    if retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(retry_after)))
    packed = []
    for detail in details:
        holder = Any()
        holder.Pack(detail)
        packed.append(holder)
    code = CODE_BY_REASON[R.ValueType(reason)].value[0]
    return status_pb2.Status(
        code=code, message=message or f"because {name(reason)}", details=packed
    )
