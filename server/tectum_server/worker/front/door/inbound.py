"""Messages of calls that are still arriving: how many may be slow at once, and for how long.

grpc puts a message together before anybody can see how long it is, up to its one limit for all
methods, and nothing but ending the call takes back what has come of it. So calls are counted while
their messages arrive. Almost all are there at once: those wait for nobody, and what they can hold
is what a network brings in a moment. Of those that take longer only so many may go on, first come,
first served, and only so long; the others end with an error that says so.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Hashable
from typing import Any, Generic, NoReturn, TypeVar

import grpc

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Context, Record, metadata_of, request_id_of
from tectum_server.worker.front.calls import Calls

__all__ = ["Inbound", "Slow"]

_TICK = 0.1
"""Seconds between two looks at what arrives, while anything does."""
_QUICK = 2
"""Ticks that pass before a message is slow: it began before the first. A loop that is late ticks
late, so who has come meanwhile is read before it is looked at again."""
_HANGING_UP = 0.02
"""Seconds from the end of what a client says to its cancellation, if it has hung up."""
_Key = TypeVar("_Key", bound=Hashable)


class Slow(Generic[_Key]):
    """Pure bookkeeping: who is arriving, since which tick, and who may not go on.

    Args:
        most: slow ones that may go on at once.
        patience: ticks after which even those end.
    """

    def __init__(self, most: int, patience: int) -> None:
        self._most = most
        self._patience = max(patience, _QUICK)
        self._now = 0
        self._since: dict[_Key, int] = {}
        """In the order in which they began."""

    def __len__(self) -> int:
        return len(self._since)

    def begin(self, key: _Key) -> None:
        """It is arriving."""
        self._since[key] = self._now

    def end(self, key: _Key) -> None:
        """It is there, or gone."""
        self._since.pop(key, None)

    def tick(self) -> tuple[list[_Key], list[_Key]]:
        """Who has taken too long, and who is one slow message too many: both are forgotten."""
        self._now += 1
        late, beyond, slow = list[_Key](), list[_Key](), 0
        for key, since in self._since.items():
            age = self._now - since
            if age < _QUICK:
                break  # as are all that follow
            if age > self._patience:
                late.append(key)
            elif slow == self._most:
                beyond.append(key)
            else:
                slow += 1
        for key in (*late, *beyond):
            del self._since[key]
        return late, beyond


class Inbound:
    """Reads the messages of unary calls.

    Args:
        calls: where refusals are told, measured and logged.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._most = calls.settings.max_arriving
        self._timeout = calls.settings.arrival_timeout
        self._slow = Slow[asyncio.Task[Any]](self._most, math.ceil(self._timeout / _TICK))
        self._told: dict[asyncio.Task[Any], Failure] = {}
        """Why calls are being ended."""
        self._timer: asyncio.TimerHandle | None = None

    def within(self, rpc: str, handler: grpc.RpcMethodHandler[Any, Any]) -> Any:
        """A unary method's handler that reads its message itself, within the bounds.

        Args:
            rpc: the method's name, for who is refused.
            handler: the method's own.
        """
        answer: Any = handler.unary_unary

        async def read_and_answer(_: object, context: Context) -> Any:
            task = asyncio.current_task()
            if task is None:
                raise AssertionError("grpc runs each call in a task of its own")
            arrived = time.monotonic()
            self._slow.begin(task)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_TICK, self._look)
            try:
                request = await context.read()
            except asyncio.CancelledError:
                failure = self._told.pop(task, None)
                if failure is None:
                    raise
                task.uncancel()
                return await self._refuse(rpc, context, arrived, failure)
            finally:
                self._slow.end(task)
            if request is grpc.aio.EOF:
                await asyncio.sleep(_HANGING_UP)
                failure = Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "the call had no request")
                return await self._refuse(rpc, context, arrived, failure)
            return await answer(request, context)

        # A handler of streams is called before there is a message; its answer is sent as any is.
        return grpc.stream_unary_rpc_method_handler(
            read_and_answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _look(self) -> None:
        """End who may not go on; look again while anything arrives."""
        late, beyond = self._slow.tick()
        for task in late:
            self._end(
                task,
                errors_pb2.ERROR_REASON_DEADLINE_PASSED,
                f"the message did not arrive within {self._timeout:g} s",
            )
        for task in beyond:
            self._end(
                task,
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"{self._most} messages are arriving slowly, no more are allowed",
            )
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_TICK, self._look) if self._slow else None

    def _end(
        self, task: asyncio.Task[Any], reason: errors_pb2.ErrorReason.ValueType, why: str
    ) -> None:
        self._told[task] = Failure(reason, why)
        task.cancel()

    async def _refuse(self, rpc: str, context: Context, arrived: float, failure: Failure) -> Any:
        async def fail() -> NoReturn:
            raise failure

        record = Record(rpc, request_id_of(metadata_of(context)), arrived)
        return await self._calls.account(record, context, fail)
