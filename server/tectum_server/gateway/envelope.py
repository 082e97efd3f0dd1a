"""What every answer is wrapped in: a request id, safe headers, a log line, a measurement.

The outermost layer. It also turns a fault of the gateway's own into a 500 that names the
request, so that no traceback leaves the house.
"""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tectum_server.gateway import problems
from tectum_server.gateway.limits import PROBES
from tectum_server.gateway.metrics import Metrics, route_of

LOGGER = logging.getLogger("tectum_server.gateway")
DOCS = "/docs"
"""The one page for browsers; it loads scripts, so the strictest policy would break it."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STRICT = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}


class Envelope:
    """Names, wraps, logs and measures every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, arrived=began)
        status, sent = 0, 0

        async def send_wrapped(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.update(_SAFE if scope["path"] == DOCS else _SAFE | _STRICT)
            sent += len(message.get("body", b""))
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_wrapped)
            except Exception:
                LOGGER.exception("fault", extra={"request_id": request_id})
                if status == 0:
                    detail = "a fault of the gateway's own; its log has the request id"
                    found = problems.problem(scope, 500, detail)
                    await problems.response(scope, found)(scope, receive, send_wrapped)
            finally:
                seconds = time.monotonic() - began
                route = route_of(scope)
                # A task that is cancelled before it answers has no status: its caller has gone.
                code = status or problems.HUNG_UP
                self.metrics.duration.labels(route, str(code)).observe(seconds)
                about = {
                    "request_id": request_id,
                    "method": scope["method"],
                    "route": route,
                    "status": code,
                    "duration_ms": round(seconds * 1000, 3),
                    "response_bytes": sent,
                    "client": scope["client"][0] if scope.get("client") else None,
                }
                quiet = scope["path"] in PROBES
                LOGGER.log(logging.DEBUG if quiet else logging.INFO, "request", extra=about)
