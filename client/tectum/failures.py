"""From a failed rpc to the exception a caller sees.

A worker sends google.rpc.Status with ErrorInfo, BadRequest and RetryInfo; gRPC itself (no
connection, a message over the transport's limit, a deadline that ran out on this side) sends a
bare code. Both end here, so that no grpc.RpcError ever leaves the SDK. Which class a reason
raises is `errors.py`'s business.
"""

import re
from collections.abc import Mapping
from typing import Protocol, cast
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tectum import errors
from tectum.durations import seconds
from tectum.errors import TectumError, Violation
from tectum.requests import SMALLER

ERROR_DOMAIN = "tectum.dev"
"""ErrorInfo.domain of every reason in the contract; others' reasons are not ours to read."""

CLASS_BY_CODE: Mapping[grpc.StatusCode, type[TectumError]] = {
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNKNOWN: errors.InternalError,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.PreconditionFailed,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    # The worker's own refusals carry details; bare, this is the transport's message limit, or
    # its limit of calls (`_is_full`).
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.TooLarge,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionFailed,
    grpc.StatusCode.ABORTED: errors.Unavailable,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    # A worker older than this SDK, or something that is no worker.
    grpc.StatusCode.UNIMPLEMENTED: errors.PreconditionFailed,
    grpc.StatusCode.INTERNAL: errors.InternalError,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DATA_LOSS: errors.InternalError,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
}
"""What a bare gRPC code raises; total but for OK."""

_TOO_MANY_CALLS = "Concurrent RPC limit exceeded!"
"""What a grpc server says to a call beyond its `maximum_concurrent_rpcs`, before it looks at it."""
_DEADLINE = "Deadline Exceeded"
"""What grpc says on this side of a deadline that ran out, alone or as `Stream removed (…)`."""
_PAUSE_SECONDS = 0.1
"""Until there may be room for it: as long as the worker itself says of a full queue."""

_ABOUT_TLS = {
    "Socket closed": "it hangs up at once: perhaps it is reached by TLS alone, tls=True or the "
    "file of its roots (--tls, --roots)",
    "WRONG_VERSION_NUMBER": "it speaks no TLS: leave out tls (--tls, --roots)",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not signed by roots known here: tls names a "
    "file of them (--roots)",
}
"""What there is to say of connections that fail, by what grpc says."""

_TOO_LARGE = re.compile(
    r"(CLIENT|SERVER): (Sent|Received) message larger than max \((\d+) vs\. (\d+)\)"
)
"""What grpc says of a message over a limit: on which side, and which way it went there."""


class _Failed(Protocol):
    """What sync and async rpc errors have in common."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...


def from_rpc(failure: grpc.RpcError, request_id: str) -> TectumError:
    """The exception for a failed rpc, of grpc's or of grpc.aio's.

    Args:
        failure: What grpc raised.
        request_id: The id that the call was sent with.
    """
    failed = cast(_Failed, failure)
    code, message = failed.code(), failed.details() or ""
    try:
        status = rpc_status.from_call(cast(grpc.Call, failure))
    except (ValueError, DecodeError):
        # The details contradict the code or cannot be read; the code alone can be trusted.
        status = None
    return from_status(code, message, status, request_id)


def _is_full(code: grpc.StatusCode, message: str) -> bool:
    """Whether grpc's server refused a bare call for all that it has under way."""
    return code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_MANY_CALLS in message


def _plain(message: str) -> str:
    """A message as it is, but for grpc's own of deadlines, sizes and mistakes in an address."""
    if _DEADLINE in message:
        return "the deadline passed before the answer came"
    if "Expected SETTINGS frame" in message or "Trying to connect an http1.x server" in message:
        return f"this is no gRPC port, perhaps the one for REST or metrics ({message})"
    if size := _TOO_LARGE.search(message):
        return _about_size(*size.groups())
    for sign, said in _ABOUT_TLS.items():
        if sign in message and "failed to connect" in message:
            return f"{said} ({message})"
    found = re.search(r"ipv[46]:(\S+:\d+)", message)
    if "Connection refused" in message and found:
        where = unquote(found[1])
        return f"no worker answers at {where} (start one: tectum up): connection refused"
    return message


def _about_size(side: str, way: str, found: str, allowed: str) -> str:
    """What to say of a message over the transport's limit on one side."""
    is_answer = (side, way) in {("CLIENT", "Received"), ("SERVER", "Sent")}
    what, to_do = ("answer", "ask for fewer items at once") if is_answer else ("request", SMALLER)
    where = "max_message_bytes" if side == "CLIENT" else "by the worker"
    return (
        f"{what}: found a message of {found} bytes; allowed: at most {allowed} ({where}); {to_do}"
    )


def from_status(
    code: grpc.StatusCode,
    message: str,
    status: status_pb2.Status | None,
    request_id: str,
) -> TectumError:
    """The exception for a status.

    Args:
        code: The call's gRPC code.
        message: Its message, for people.
        status: What came with it. None: nothing did, so the failure is the transport's.
        request_id: The id that the call was sent with.
    """
    reason, violations, retry_after = "", list[Violation](), None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            reason = info.reason
        elif detail.Unpack(bad_request):
            violations += [Violation(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_after = seconds(retry.retry_delay)
    raised = errors.class_for_reason(reason) or CLASS_BY_CODE.get(code, errors.InternalError)
    if status is None and _is_full(code, message):
        raised, retry_after = errors.Overloaded, _PAUSE_SECONDS
    if status is None and code is grpc.StatusCode.UNKNOWN and _DEADLINE in message:
        raised = errors.DeadlineExceeded
    return raised(
        _plain(message) or f"the call failed with {code.name}",
        reason=reason,
        request_id=request_id,
        violations=violations,
        retry_after=retry_after,
    )
