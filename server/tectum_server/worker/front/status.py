"""A Failure as the wire tells it: google.rpc.Status with details, or an item's error."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure, reason_name
from tectum_server.worker.front.wire import duration

__all__ = ["DOMAIN", "code_of", "item_error", "to_grpc"]

DOMAIN = "tectum.dev"
"""ErrorInfo's domain."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def code_of(failure: Failure) -> grpc.StatusCode:
    """The gRPC code of the whole call."""
    return _CODES[failure.code]


def to_grpc(failure: Failure, request_id: str) -> grpc.Status:
    """What `context.abort_with_status` takes: ErrorInfo always, BadRequest and RetryInfo as due."""
    status = status_pb2.Status(code=failure.code, message=str(failure))
    _add(
        status,
        error_details_pb2.ErrorInfo(
            reason=reason_name(failure.reason),
            domain=DOMAIN,
            metadata={"request_id": request_id},
        ),
    )
    violations = failure.violations
    if failure.field and not violations:
        violations = ((failure.field, failure.message),)
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations:
            bad.field_violations.add(field=field, description=description)
        _add(status, bad)
    if failure.retry_delay is not None:
        _add(status, error_details_pb2.RetryInfo(retry_delay=duration(failure.retry_delay)))
    return rpc_status.to_status(status)


def item_error(failure: Failure, field: str) -> errors_pb2.ItemError:
    """Why one item of a batch failed."""
    error = errors_pb2.ItemError(
        code=failure.code,
        reason=failure.reason,
        field=failure.field or field,
        message=failure.message,
    )
    if failure.retry_delay is not None:
        error.retry_delay.CopyFrom(duration(failure.retry_delay))
    return error


def _add(status: status_pb2.Status, detail: object) -> None:
    packed = AnyMessage()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)
