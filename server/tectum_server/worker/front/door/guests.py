"""Calls that need no credentials: health and reflection, which answer whoever finds the port.

grpc puts a message together before anybody can see how long it is, up to its one limit for all
methods: 72 MiB as shipped. So strangers are heard a few at a time, all methods together, and
briefly; of who waits for a turn, the server takes 256 KiB unasked. Besides, each method has places
of its own, so the server has room for calls with credentials, and who watches keeps nobody from
checking.

What remains possible, as shipped: 8 turns times 72 MiB is 576 MiB, while strangers send that much
within a second, again and again (a gigabit link brings 120 MiB), and 84 MiB for all 336 places.
Whoever sends more than 160 calls a second without their requests (8 turns of 0.05 s) makes others
wait for theirs, 2 s at most, and then be refused.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
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
"""Bytes of a request, which is a name: who watches would hold it for as long as it does."""
_MOMENT = 0.05
"""Seconds of a turn while others wait for one. The request of a call that has one is sent with the
call, and is read within milliseconds; the rest is for a loop that is late."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the calls of one method may take."""

    places: int
    """Calls at once."""
    patience: float
    """Seconds that the next request of a call is waited for, if nobody waits for the turn."""


class Guests(grpc.aio.ServerInterceptor):
    """The door of these methods; other ones it does not know.

    Args:
        bounds: by method, as the wire names it: `/package.Service/Method`.
        turns: calls of all these methods that are read from at once.
    """

    def __init__(self, bounds: Mapping[str, Bounds], turns: int) -> None:
        heard = _Turns(turns)
        self._rooms = {method: _Room(method, bound, heard) for method, bound in bounds.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, within its bounds.

        Raises:
            TypeError: it is no async function, and grpc would run it in a thread.
        """
        handler = await continuation(handler_call_details)
        room = self._rooms.get(handler_call_details.method)
        if handler is None or room is None:
            return handler
        method = _method_of(handler)
        if not (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)):
            raise TypeError(f"{handler_call_details.method} is no async function")

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


class _Turns:
    """Who is heard now, so many at once; the others wait, first come, first heard."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._waiting = 0
        self._heard: dict[asyncio.Timeout, float] = {}
        """When calls lose their turns if others wait."""

    @asynccontextmanager
    async def turn(self, patience: float) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for so many seconds at most.

        Raises:
            TimeoutError: it was over too soon.
        """
        await self._wait()
        try:
            hurried = asyncio.get_running_loop().time() + _MOMENT
            async with asyncio.timeout(min(patience, _MOMENT) if self._waiting else patience) as it:
                self._heard[it] = hurried
                try:
                    yield
                finally:
                    del self._heard[it]
        finally:
            self._free.release()

    async def _wait(self) -> None:
        if self._free.locked():
            for limit, hurried in self._heard.items():
                if not limit.expired():
                    limit.reschedule(min(limit.when() or hurried, hurried))
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1


class _Room:
    """One method's places."""

    def __init__(self, method: str, bounds: Bounds, turns: _Turns) -> None:
        self._method = method
        self._bounds = bounds
        self._turns = turns
        self._taken = 0

    async def host(self, handler: Any, context: Context) -> None:
        """Answer a call, if there is a place for it.

        Raises:
            Failure: QUEUE_FULL, or its request is none or has not come.
        """
        if self._taken >= self._bounds.places:
            raise Failure(
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"{self._taken} calls of {self._method} are under way, no more are allowed",
            )
        self._taken += 1
        try:
            await self._answer(handler, context)
        finally:
            self._taken -= 1

    async def _answer(self, handler: Any, context: Context) -> None:
        """As grpc itself would: with what the method returns, yields, or writes itself."""
        if handler.request_streaming:
            asked = self._requests(handler, context)
        elif (asked := await self._hear(handler, context)) is grpc.aio.EOF:
            raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "the call had no request")
        answer = _method_of(handler)(asked, context)
        if inspect.isasyncgen(answer):
            async with aclosing(answer) as responses:
                async for response in responses:
                    await context.write(response)
        elif handler.response_streaming:
            await answer
        else:
            await context.write(await answer)

    async def _requests(self, handler: Any, context: Context) -> AsyncIterator[Any]:
        while (request := await self._hear(handler, context)) is not grpc.aio.EOF:
            yield request

    async def _hear(self, handler: Any, context: Context) -> Any:
        """The next request, or EOF.

        Raises:
            Failure: it did not come in time, is too long, or damaged.
        """
        try:
            async with self._turns.turn(self._bounds.patience):
                data = await context.read()
        except TimeoutError:
            raise Failure(
                errors_pb2.ERROR_REASON_DEADLINE_PASSED,
                f"no request came within {self._bounds.patience:g} s, or {_MOMENT:g} s while "
                "others waited to be heard",
            ) from None
        return data if data is grpc.aio.EOF else _unpacked(data, handler.request_deserializer)


def _method_of(handler: Any) -> Callable[[Any, Context], Any]:
    """The function behind a handler, which has four fields for it and fills one."""
    asked, answered = (
        "stream" if streaming else "unary"
        for streaming in (handler.request_streaming, handler.response_streaming)
    )
    method: Callable[[Any, Context], Any] = getattr(handler, f"{asked}_{answered}")
    return method


def _unpacked(data: bytes, unpack: Callable[[bytes], Any] | None) -> Any:
    if len(data) > _LARGEST:
        raise Failure(
            errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
            f"{len(data)} bytes, at most {_LARGEST} are allowed here",
        )
    try:
        return data if unpack is None else unpack(data)
    except DecodeError as error:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, "the message is damaged"
        ) from error
