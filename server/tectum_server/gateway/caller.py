"""One REST caller's call to the worker: what its headers say, and what happens if it hangs up.

Knows HTTP's headers and the SDK's options, and no route.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field
from starlette.exceptions import HTTPException

import tectum
from tectum import CallOptions, InferenceOptions, Priority
from tectum_server.gateway.problems import HUNG_UP
from tectum_server.gateway.reach import Reach
from tectum_server.gateway.wrong import within

Answer = TypeVar("Answer")
PriorityName = Literal["control", "interactive", "bulk"]

LONGEST_DEADLINE = 3_600_000.0
"""Milliseconds a caller may ask for."""
Deadline = Annotated[
    float,
    Field(gt=0, le=LONGEST_DEADLINE),
    within(f"above 0 and at most {LONGEST_DEADLINE:.0f}"),
]

_bearer = HTTPBearer(auto_error=False, description="Passed on to the worker.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and how they want to be answered."""

    request: Request
    client: tectum.AsyncClient
    deadline_ms: float | None
    """Milliseconds from the request's arrival. None: the worker's default for the priority."""
    priority: Priority
    expected_spaces: tuple[str, ...]
    token: str | None

    def plain_options(self) -> CallOptions:
        """The SDK's options for a call that runs no model.

        Raises:
            DeadlineExceeded: the deadline passed while the body arrived.
        """
        # Refusals go back to the caller, who alone knows whether waiting is worth it.
        options = CallOptions(request_id=self.request.state.request_id, token=self.token, retries=0)
        if self.deadline_ms is not None:
            left = self.deadline_ms / 1000 - (time.monotonic() - self.request.state.arrived)
            if left <= 0:
                message = "the deadline passed while the request arrived"
                raise tectum.DeadlineExceeded(message, reason="DEADLINE_PASSED")
            options["timeout"] = left
        return options

    def options(self, model: str) -> InferenceOptions:
        """The SDK's options for a call that runs a model; empty: the worker's default model."""
        return InferenceOptions(
            **self.plain_options(),
            model=model,
            priority=self.priority,
            expected_spaces=self.expected_spaces,
        )

    async def answer(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for a call, or cancel it when the caller hangs up.

        Raises:
            Cancelled: the caller hung up; nobody will read the answer.
            HTTPException: the body, which the route has no use for, is refused.
        """
        calling = asyncio.ensure_future(call)
        leaving = asyncio.ensure_future(self._leaves())
        try:
            await asyncio.wait({calling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                leaving.result()
                raise tectum.Cancelled("the caller hung up", reason="CANCELLED")
            return self._result(calling)
        finally:
            for task in (calling, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, tectum.TectumError, HTTPException):
                    await task

    def _result(self, called: asyncio.Future[Answer]) -> Answer:
        """What a call that is done has given; the log is told where the worker is out of reach."""
        reach: Reach = self.request.app.state.reach
        try:
            answer = called.result()
        except tectum.TectumError as error:
            reach.note(error)
            raise
        reach.note(None)
        return answer

    async def _leaves(self) -> None:
        """Returns when the caller has gone.

        Raises:
            HTTPException: the body is refused; of routes that have one, it has been read before.
        """
        try:
            while (await self.request.receive())["type"] != "http.disconnect":
                pass
        except HTTPException as refused:
            if refused.status_code != HUNG_UP:  # so a caller leaves before its body was read
                raise


def caller(
    request: Request,
    deadline_ms: Annotated[
        Deadline | None,
        Header(
            alias="X-Tectum-Deadline-Ms",
            description="Milliseconds until the answer is worthless, from the request's arrival. "
            "Absent: the worker's default for the priority.",
        ),
    ] = None,
    priority: Annotated[
        PriorityName,
        Header(alias="X-Tectum-Priority", description="Which work goes first."),
    ] = "interactive",
    expected_space: Annotated[
        str,
        Header(
            alias="X-Tectum-Expected-Space",
            description="Space ids the caller relies on, separated by commas, at most 8; another "
            "space is refused with 409. Empty: any space will do.",
        ),
    ] = "",
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> Caller:
    """FastAPI's dependency: the caller behind a request.

    Raises:
        Unauthenticated: credentials of a kind that no worker takes.
    """
    token = credentials.credentials if credentials else None
    if "authorization" in request.headers and not (token and token.isascii() and " " not in token):
        message = "found other credentials; allowed: `Authorization: Bearer …`"
        raise tectum.Unauthenticated(message, reason="CREDENTIALS_INVALID")
    return Caller(
        request=request,
        client=request.app.state.client,
        deadline_ms=deadline_ms,
        priority=Priority[priority.upper()],
        expected_spaces=tuple(filter(None, (s.strip() for s in expected_space.split(",")))),
        token=token,
    )


CallerOf = Annotated[Caller, Depends(caller)]
"""A route's caller."""
