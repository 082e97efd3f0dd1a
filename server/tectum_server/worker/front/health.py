"""The standard health service, whose watchers do not depend on each other.

The library's forgets all of a service's watchers as one of them leaves, so the others hear of no
change any more; and it tells them one after another, so that one who does not read stops the rest.
"""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

__all__ = ["Health"]


class Health(HealthServicer):
    """Statuses by service, to be checked and watched."""

    _server_status: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Condition()

    async def Watch(  # noqa: N802 - the rpc has this name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> None:
        """Tell the status now, and each that differs from the one told last."""
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        told = None
        while True:
            async with self._changed:
                while (status := self._server_status.get(request.service, unknown)) == told:
                    await self._changed.wait()
            told = status
            await context.write(health_pb2.HealthCheckResponse(status=status))

    async def _set(self, service: str, status: Any) -> None:
        async with self._changed:
            self._server_status[service] = status
            self._changed.notify_all()
