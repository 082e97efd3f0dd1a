"""A Failure as the wire tells it: google.rpc.Status with details, or an item's error."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tectum.v1 import errors_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure, reason_name

__all__ = ["DOMAIN", "brief", "code_of", "item_error", "to_grpc"]

DOMAIN = "tectum.dev"
"""ErrorInfo's domain."""
_LONGEST = 512
"""Bytes of one message."""
_MOST_DETAIL = 3072
"""Bytes of all violations. By gRPC's default a client refuses trailing metadata at random between
8 and 16 KiB, and always beyond; the message stands in them too, each byte as up to three."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def code_of(failure: Failure) -> grpc.StatusCode:
    """The gRPC code of the whole call."""
    return _CODES[failure.code]


def brief(text: str) -> str:
    """A message, cut to what a status has room for: callers' own words may be in it."""
    encoded = text[:_LONGEST].encode(errors="replace")
    if len(text) <= _LONGEST and len(encoded) <= _LONGEST:
        return text
    return encoded[: _LONGEST - 3].decode(errors="ignore") + "…"


def to_grpc(failure: Failure, request_id: str) -> grpc.Status:
    """What `context.abort_with_status` takes: ErrorInfo always, BadRequest and RetryInfo as due."""
    status = status_pb2.Status(code=failure.code, message=brief(str(failure)))
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
        _add(status, _bad_request(violations))
    if failure.retry_delay is not None:
        _add(status, error_details_pb2.RetryInfo(retry_delay=duration(failure.retry_delay)))
    return rpc_status.to_status(status)


def item_error(failure: Failure, field: str) -> errors_pb2.ItemError:
    """Why one item of a batch failed."""
    error = errors_pb2.ItemError(
        code=failure.code,
        reason=failure.reason,
        field=failure.field or field,
        message=brief(failure.message),
    )
    if failure.retry_delay is not None:
        error.retry_delay.CopyFrom(duration(failure.retry_delay))
    return error


def _bad_request(violations: Sequence[tuple[str, str]]) -> error_details_pb2.BadRequest:
    """The violations, as many as there is room for; the last one says how many more there are."""
    bad = error_details_pb2.BadRequest()
    for index, (field, description) in enumerate(violations):
        told = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=brief(description)
        )
        if bad.field_violations and bad.ByteSize() + told.ByteSize() > _MOST_DETAIL:
            bad.field_violations[-1].description += f" (and {len(violations) - index} more)"
            break
        bad.field_violations.append(told)
    return bad


def _add(status: status_pb2.Status, detail: object) -> None:
    packed = AnyMessage()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)
