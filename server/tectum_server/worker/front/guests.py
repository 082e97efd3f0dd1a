"""Calls that need no credentials: health and reflection, which answer whoever finds the port.

Each of their methods has places of its own. So whatever is done with them, the server has room for
calls with credentials, and who watches keeps nobody from checking. A place is for who asks: a call
without a request loses it after a while, and much sooner if all are taken and another one comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Context, metadata_of, request_id_of
from tectum_server.worker.front.status import to_grpc

__all__ = ["Bounds", "Guests"]

_LARGEST = 2**14
"""Bytes of a request, which is a name. grpc has one limit for all methods, and who watches would
hold up to that for as long as it does."""
_MOMENT = 0.1
"""Seconds in which the request of a call comes that has one: it is sent with the call."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the calls of one method may take."""

    places: int
    """Calls at once."""
    patience: float
    """Seconds that the next request of a call is waited for."""


class Guests(grpc.aio.ServerInterceptor):
    """The door of these methods; other ones it does not know.

    Args:
        bounds: by method, as the wire names it: `/package.Service/Method`.
    """

    def __init__(self, bounds: Mapping[str, Bounds]) -> None:
        self._rooms = {method: _Room(method, bound) for method, bound in bounds.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, within its bounds."""
        handler = await continuation(handler_call_details)
        room = self._rooms.get(handler_call_details.method)
        if handler is None or room is None:
            return handler

        async def within(_: object, context: Context) -> None:
            try:
                await room.host(handler, context)
            except Failure as caught:
                # Its traceback would keep the request until the next garbage collection.
                failure = caught.with_traceback(None)
            else:
                return
            request_id = request_id_of(metadata_of(context))
            await context.abort_with_status(to_grpc(failure, request_id))

        # A handler of streams is called before there is a request: one that never comes counts too.
        return grpc.stream_stream_rpc_method_handler(
            within, response_serializer=handler.response_serializer
        )


class _Room:
    """One method's places."""

    def __init__(self, method: str, bounds: Bounds) -> None:
        self._method = method
        self._bounds = bounds
        self._taken = 0
        self._silent: dict[asyncio.Timeout, float] = {}
        """When calls without a request lose their places, and since when they have been silent; in
        that order."""

    async def host(self, handler: Any, context: Context) -> None:
        """Answer a call, if there is a place for it.

        Raises:
            Failure: QUEUE_FULL, or its request is none or has not come.
        """
        if self._taken >= self._bounds.places and not self._free_one():
            raise Failure(
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"{self._taken} calls of {self._method} are under way, no more are allowed",
            )
        self._taken += 1
        try:
            await self._answer(handler, context)
        finally:
            self._taken -= 1

    def _free_one(self) -> bool:
        """Let the longest silent call lose its place; tells whether there is one."""
        now = asyncio.get_running_loop().time()
        for limit, since in self._silent.items():
            if now < since + _MOMENT:
                break
            del self._silent[limit]
            if not limit.expired():
                limit.reschedule(now)
            return True
        return False

    async def _answer(self, handler: Any, context: Context) -> None:
        """As grpc itself would, whatever kind of method it is."""
        if handler.request_streaming:
            async for response in handler.stream_stream(self._requests(handler, context), context):
                await context.write(response)
            return
        request = await self._hear(handler, context)
        if request is grpc.aio.EOF:
            raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "the call had no request")
        if handler.response_streaming:
            await handler.unary_stream(request, context)
        else:
            await context.write(await handler.unary_unary(request, context))

    async def _requests(self, handler: Any, context: Context) -> AsyncIterator[Any]:
        while (request := await self._hear(handler, context)) is not grpc.aio.EOF:
            yield request

    async def _hear(self, handler: Any, context: Context) -> Any:
        """The next request, or EOF.

        Raises:
            Failure: it did not come in time, is too long, or damaged.
        """
        try:
            async with asyncio.timeout(self._bounds.patience) as limit:
                self._silent[limit] = asyncio.get_running_loop().time()
                try:
                    data = await context.read()
                finally:
                    self._silent.pop(limit, None)
        except TimeoutError:
            raise Failure(
                errors_pb2.ERROR_REASON_DEADLINE_PASSED,
                f"no request came within {self._bounds.patience:g} s, or before another call "
                "needed the place",
            ) from None
        return data if data is grpc.aio.EOF else _unpacked(data, handler.request_deserializer)


def _unpacked(data: bytes, unpack: Callable[[bytes], Any]) -> Any:
    if len(data) > _LARGEST:
        raise Failure(
            errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
            f"{len(data)} bytes, at most {_LARGEST} are allowed here",
        )
    try:
        return unpack(data)
    except DecodeError as error:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, "the message is damaged"
        ) from error
