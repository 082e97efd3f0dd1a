"""The standard health service: what serves, asked for once or watched.

Its watchers do not depend on each other: one who leaves does not make the others deaf, and one who
does not read does not keep them waiting.

A model that is gone is not known, and its calls are told MODEL_NOT_FOUND; one that is only away,
because the engine is being restarted, does not serve, and its calls are told ENGINE_UNAVAILABLE.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["Health"]

_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):
    """Statuses by service; the worker as a whole has the empty name, and does not serve yet.

    While the worker ends, no status changes any more.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": _NOT_SERVING}
        self._changed = asyncio.Condition()
        self._ending = False

    async def Check(  # noqa: N802 - the rpcs have these names
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for a service that there is not."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> None:
        """Tell the status now, and each that differs from the one told last.

        A service that there is not is SERVICE_UNKNOWN, and may yet come.
        """
        told = None
        while True:
            async with self._changed:
                while (status := self._statuses.get(request.service, _UNKNOWN)) == told:
                    await self._changed.wait()
            told = status
            await context.write(health_pb2.HealthCheckResponse(status=status))

    async def set(self, service: str, status: int) -> None:
        """Tell a service's ServingStatus."""
        async with self._changed:
            if not self._ending:
                self._statuses[service] = status
                self._changed.notify_all()

    async def forget(self, service: str) -> None:
        """There is no such service any more."""
        async with self._changed:
            if not self._ending:
                self._statuses.pop(service, None)
                self._changed.notify_all()

    async def enter_graceful_shutdown(self) -> None:
        """Nothing serves from now on."""
        async with self._changed:
            self._ending = True
            self._statuses = dict.fromkeys(self._statuses, _NOT_SERVING)
            self._changed.notify_all()
