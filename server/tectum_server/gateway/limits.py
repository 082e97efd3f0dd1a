"""Bounds on what callers may make the gateway hold: bodies and requests in flight.

Pure ASGI, because a limit must work while a body is being read and not after. What is refused
here never reaches a route; how a refusal is written is `problems.py`'s business.
"""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tectum_server.gateway import problems
from tectum_server.gateway.settings import GatewaySettings

RETRY_AFTER = 1.0
"""Seconds after which a request refused for want of room may come back."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Never refused: a gateway that is full is still alive."""
PICTURELESS = frozenset({"/v1/embed/texts", problems.OPENAI_ROUTE})
"""Routes that take no pictures, and so need no large bodies."""


class ConcurrencyLimit:
    """Refuses requests beyond a number in flight, before it reads them."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request or refuse it."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        if self.in_flight >= self.most:
            detail = f"{self.most} requests are in flight, which is all this gateway takes"
            await refuse(scope, receive, send, 429, detail)
            return
        self.in_flight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_flight -= 1


class BodyLimit:
    """Bounds one body's bytes and time, and all held bodies' bytes together."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self.app = app
        self.settings = settings
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, reading no more of it than is allowed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = most_bytes(self.settings, scope["path"])
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > most:
            # Said beforehand, so nothing need be read; a body without a length is counted below.
            await refuse(scope, receive, send, 413, too_large(int(announced), most))
            return
        body = Body(self, most, receive)
        try:
            await self.app(scope, body.receive, send)
        finally:
            self.held -= body.size


class Body:
    """One request's body as it arrives."""

    def __init__(self, limit: BodyLimit, most: int, receive: Receive) -> None:
        self.limit = limit
        self.most = most
        self.size = 0
        self._receive = receive
        self._complete = False
        self._ends = asyncio.get_running_loop().time() + limit.settings.body_seconds

    async def receive(self) -> Message:
        """The next message of the request.

        Raises:
            HTTPException: the body is too large, too slow or broken off, or the gateway holds too
                much.
        """
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body took longer than {self.limit.settings.body_seconds:g} s to arrive"
            raise HTTPException(408, detail) from None
        if message["type"] == "http.disconnect":
            raise HTTPException(problems.HUNG_UP, "the caller hung up while it was sending")
        size = len(message.get("body", b""))
        self.size += size
        self.limit.held += size
        if self.size > self.most:
            raise HTTPException(413, too_large(self.size, self.most))
        if self.limit.held > self.limit.settings.max_buffered_bytes:
            detail = "the bodies being answered now are all that this gateway can hold"
            raise HTTPException(429, detail, {"Retry-After": f"{RETRY_AFTER:g}"})
        self._complete = not message.get("more_body", False)
        return message


def most_bytes(settings: GatewaySettings, path: str) -> int:
    """How large a body may be on a path."""
    most = settings.max_body_bytes
    return min(most, settings.max_text_body_bytes) if path in PICTURELESS else most


def too_large(size: int, most: int) -> str:
    """What is wrong with a body of so many bytes."""
    return f"found a body of {size} bytes or more; allowed: at most {most}"


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Answer with a problem in place of the app."""
    retry_after = RETRY_AFTER if status == 429 else None
    found = problems.problem(scope, status, detail, retry_after=retry_after)
    await problems.response(scope, found)(scope, receive, send)
