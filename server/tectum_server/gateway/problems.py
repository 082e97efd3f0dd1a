"""Every failure as RFC 9457 `application/problem+json`, and the table from reason to status.

A worker's reasons, the SDK's own failures and FastAPI's all end here. On the OpenAI-compatible
route the same problem is written in OpenAI's shape instead. Per-item errors never come here:
they stay inside an answer with status 200.
"""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

import tectum
from tectum.v1 import errors_pb2
from tectum_server.gateway.fields import rest_field, rest_words
from tectum_server.gateway.wrong import description_of, field_of, reason_of

OPENAI_ROUTE = "/v1/embeddings"
"""The route whose errors have OpenAI's shape."""
MEDIA_TYPE = "application/problem+json"
HUNG_UP = 499
"""Nginx's status for a caller that left; nobody receives it, logs and metrics count it."""

_R = errors_pb2.ErrorReason

STATUS_BY_REASON: Mapping[int, int] = {
    _R.ERROR_REASON_FIELD_MISSING: 422,
    _R.ERROR_REASON_FIELD_OUT_OF_RANGE: 422,
    _R.ERROR_REASON_SHAPE_MISMATCH: 422,
    _R.ERROR_REASON_NOT_FINITE: 422,
    _R.ERROR_REASON_TOO_MANY_ITEMS: 422,
    _R.ERROR_REASON_IMAGE_UNREADABLE: 422,
    _R.ERROR_REASON_IMAGE_UNSUPPORTED: 422,
    _R.ERROR_REASON_IMAGE_TOO_LARGE: 422,
    _R.ERROR_REASON_INTERVAL_MISMATCH: 422,
    _R.ERROR_REASON_MESSAGE_TOO_LARGE: 413,
    _R.ERROR_REASON_QUEUE_FULL: 429,
    _R.ERROR_REASON_DEADLINE_UNREACHABLE: 429,
    _R.ERROR_REASON_DEADLINE_INFEASIBLE: 429,
    _R.ERROR_REASON_DEADLINE_PASSED: 504,
    _R.ERROR_REASON_MODEL_NOT_FOUND: 404,
    _R.ERROR_REASON_CAPABILITY_MISSING: 409,
    _R.ERROR_REASON_SPACE_MISMATCH: 409,
    _R.ERROR_REASON_BUNDLE_REJECTED: 409,
    _R.ERROR_REASON_DRAINING: 503,
    _R.ERROR_REASON_ENGINE_UNAVAILABLE: 503,
    _R.ERROR_REASON_CREDENTIALS_INVALID: 401,
    _R.ERROR_REASON_PERMISSION_MISSING: 403,
    _R.ERROR_REASON_CANCELLED: HUNG_UP,
    _R.ERROR_REASON_INTERNAL: 500,
    _R.ERROR_REASON_MODEL_LOADING: 503,
}
"""HTTP status of each of the contract's reasons; total but for UNSPECIFIED."""

STATUS_BY_CLASS: Mapping[type[tectum.TectumError], int] = {
    tectum.InvalidInput: 422,
    tectum.TooLarge: 413,
    tectum.NotFound: 404,
    tectum.PreconditionFailed: 409,
    tectum.Unauthenticated: 401,
    tectum.PermissionDenied: 403,
    tectum.Overloaded: 429,
    tectum.DeadlineTooShort: 429,
    tectum.DeadlineExceeded: 504,
    tectum.Unavailable: 503,
    tectum.Cancelled: HUNG_UP,
    tectum.InternalError: 500,
    tectum.ItemFailed: 422,
    tectum.ClientClosed: 503,
    tectum.TectumError: 500,
}
"""HTTP status of failures that arose on the way and carry no reason."""

REASON_BY_STATUS: Mapping[int, str] = {
    413: "MESSAGE_TOO_LARGE",
    429: "QUEUE_FULL",
    HUNG_UP: "CANCELLED",
    500: "INTERNAL",
    504: "DEADLINE_PASSED",
}
"""The contract's word for failures of the gateway's own or of the way, where it has one."""


class Violation(BaseModel):
    """One thing wrong with a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Path into the request: `images[3]`."""
    description: str
    """What was found and what is allowed."""


class Problem(BaseModel):
    """Why a request failed (RFC 9457)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = Field(default="about:blank", examples=["urn:tectum:problem:queue-full"])
    """Names the kind of problem: `urn:tectum:problem:` and the reason, or `about:blank`."""
    title: str = Field(examples=["Queue full"])
    """The kind of problem, for people."""
    status: int = Field(examples=[429])
    """The HTTP status again."""
    detail: str
    """What was found and what is allowed, for people."""
    instance: str = Field(examples=["/v1/embed/images"])
    """The path that was asked."""
    reason: str | None = Field(default=None, examples=["QUEUE_FULL"])
    """Name in the contract's ErrorReason. Absent: the failure is HTTP's own."""
    request_id: str
    """Names the request in the gateway's and the worker's logs; also in `X-Request-Id`."""
    retry_after_ms: float | None = None
    """After how long a retry can help. Absent: it cannot."""
    violations: list[Violation] = Field(default_factory=list)
    """What was wrong with the request, field by field."""


def of_error(error: tectum.TectumError, scope: Scope) -> Problem:
    """The problem for anything the SDK raises."""
    number = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(f"ERROR_REASON_{error.reason}")
    status = None if number is None else STATUS_BY_REASON.get(number.number)
    if status is None:
        status = next(STATUS_BY_CLASS[c] for c in type(error).__mro__ if c in STATUS_BY_CLASS)
    violations = [
        Violation(field=rest_field(v.field), description=rest_words(v.description, [v.field]))
        for v in error.violations
    ]
    return problem(
        scope,
        status,
        rest_words(str(error), [v.field for v in error.violations]),
        reason=error.reason or None,
        retry_after=error.retry_after,
        violations=violations,
    )


def of_validation(errors: Sequence[Any], scope: Scope) -> Problem:
    """The problem for a request that does not fit its schema; pydantic's errors."""
    broken = next((error for error in errors if error["type"] == "json_invalid"), None)
    if broken is not None:
        detail = f"the body is not valid JSON: {broken['ctx']['error']}"
        return problem(scope, 400, detail)
    violations = [
        Violation(field=field_of(error), description=description_of(error)) for error in errors
    ]
    described = "; ".join(f"{v.field}: {v.description}" for v in violations[:3])
    return problem(scope, 422, described, reason=reason_of(errors[0]), violations=violations)


def problem(
    scope: Scope,
    status: int,
    detail: str,
    *,
    reason: str | None = None,
    retry_after: float | None = None,
    violations: Sequence[Violation] = (),
) -> Problem:
    """A problem with a request."""
    reason = reason or REASON_BY_STATUS.get(status)
    if reason is None:
        kind, title = "about:blank", HTTPStatus(status).phrase
    else:
        kind = f"urn:tectum:problem:{reason.lower().replace('_', '-')}"
        title = reason.replace("_", " ").capitalize()
    return Problem(
        type=kind,
        title=title,
        status=status,
        detail=detail,
        instance=scope["path"],
        reason=reason,
        request_id=scope.get("state", {}).get("request_id", ""),
        retry_after_ms=None if retry_after is None else retry_after * 1000,
        violations=list(violations),
    )


def response(scope: Scope, found: Problem) -> Response:
    """The problem as an answer, in the shape of the route that was asked."""
    headers = {}
    if found.retry_after_ms is not None:
        headers["Retry-After"] = str(max(1, math.ceil(found.retry_after_ms / 1000)))
    if found.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if scope["path"] == OPENAI_ROUTE:
        return JSONResponse(_openai(found), found.status, headers)
    content = found.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, found.status, headers, MEDIA_TYPE)


async def answer_error(request: Request, error: Exception) -> Response:
    """FastAPI's hook for every exception that a request may end with."""
    scope = request.scope
    match error:
        case tectum.TectumError():
            found = of_error(error, scope)
        case RequestValidationError():
            found = of_validation(error.errors(), scope)
        case HTTPException():
            asked = (error.headers or {}).get("Retry-After")
            retry_after = None if asked is None else float(asked)
            found = problem(scope, error.status_code, str(error.detail), retry_after=retry_after)
        case _:
            raise error
    answer = response(scope, found)
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


class OpenAIError(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(BaseModel):
    """Why a request failed, in OpenAI's shape."""

    error: OpenAIError


def documented(*statuses: int, model: type[BaseModel] = Problem) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides its own answer, for the documentation.

    Args:
        statuses: those it may answer with; none: every one, as routes do that run a model.
        model: the shape of its problems.
    """
    return {
        status: {"model": model, "description": _DESCRIBED[status]}
        for status in statuses or _DESCRIBED
    }


_DESCRIBED = {
    400: "The body is no JSON, or no form.",
    401: "No credentials, or none that the worker knows.",
    403: "The credentials do not allow this.",
    404: "The model is unknown or not loaded.",
    408: "The body took too long to arrive.",
    409: "The model has no such head, or another space than the one expected.",
    413: "The body is too large.",
    415: "The body is of a media type that the route does not read.",
    422: "A field is missing or lies outside what it allows.",
    429: "Shed before it ran; `Retry-After` where a retry can help.",
    500: "A fault; the log has the request id.",
    503: "No worker answers.",
    504: "The deadline passed.",
}
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def _openai(found: Problem) -> dict[str, Any]:
    ours = "invalid_request_error" if found.status < 500 else "server_error"
    error = OpenAIError(
        message=found.detail,
        type=_OPENAI_TYPES.get(found.status, ours),
        # OpenAI's word for the texts; the worker knows nothing of it.
        param=found.violations[0].field.replace("texts", "input") if found.violations else None,
        code=found.reason.lower() if found.reason else None,
    )
    return OpenAIProblem(error=error).model_dump()
