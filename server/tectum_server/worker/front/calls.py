"""What every call passes through, whatever it asks: the one place for what all share.

Credentials, size, draining, model and spaces, deadline, request id, failures, metrics,
log. A servicer's method is left with reading its request and building its answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from tectum.v1 import call_pb2, errors_pb2
from tectum_server.worker.failure import Failure, reason_name
from tectum_server.worker.front.access import Access, Role
from tectum_server.worker.front.call import (
    Call,
    Context,
    fault,
    loop_time,
    metadata_of,
    read_priority,
    request_id_of,
    time_left,
)
from tectum_server.worker.front.catalogue import Catalogue
from tectum_server.worker.front.status import code_of, to_grpc
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import Engine, Job, JobResult, Priority
from tectum_server.worker.metrics import FrontMetrics
from tectum_server.worker.settings import WorkerSettings

__all__ = ["Calls"]

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_MAX_EXPECTED_SPACES = 8
_REFUSALS = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})


class Calls:
    """The corridor.

    Args:
        settings: limits and deadlines.
        engine: what computes.
        catalogue: what serves.
        access: who may call.
        metrics: where requests are counted.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        engine: Engine,
        catalogue: Catalogue,
        access: Access,
        metrics: FrontMetrics,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.catalogue = catalogue
        self.metrics = metrics
        self.in_flight = InFlight()
        self._draining = asyncio.Event()
        self._access = access
        self._items = 0
        self._streams = 0

    @property
    def draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._draining.set()

    async def until_draining(self) -> None:
        """Return once nothing new is taken."""
        await self._draining.wait()

    async def unary(
        self,
        rpc: str,
        request: Any,
        context: Context,
        work: Callable[[Any, Call], Awaitable[_Answer]],
    ) -> _Answer:
        """Answer a PerceptionService call whose request has `options`."""
        metadata = metadata_of(context)
        request_id = request_id_of(metadata)
        priority = Priority.INTERACTIVE
        arrived = time.monotonic()
        model = ""
        with self.in_flight:
            try:
                self.check(metadata, request, "infer")
                priority = read_priority(request.options, Priority.INTERACTIVE)
                call = self.open(request.options, priority, request_id, arrived, time_left(context))
                model = call.served.entry.name
                async with asyncio.timeout_at(loop_time(call.deadline)):
                    answer = await work(request, call)
            except TimeoutError:
                passed = errors_pb2.ERROR_REASON_DEADLINE_PASSED
                failure = Failure(passed, "the deadline passed before the answer was ready")
            except Failure as caught:
                failure = caught
            except asyncio.CancelledError:
                self._observe(rpc, model, priority, grpc.StatusCode.CANCELLED, arrived, request_id)
                raise
            except Exception:
                _log.exception("a call failed", extra={"rpc": rpc, "request_id": request_id})
                failure = fault(request_id)
            else:
                self._observe(rpc, model, priority, grpc.StatusCode.OK, arrived, request_id)
                return answer
            await self.refuse(rpc, context, failure, request_id, arrived, model, priority)
        raise AssertionError("refuse() always raises")

    async def admin(
        self,
        rpc: str,
        request: Any,
        context: Context,
        role: Role,
        work: Callable[[Any], Awaitable[_Answer]],
    ) -> _Answer:
        """Answer a ModelService call."""
        metadata = metadata_of(context)
        request_id, arrived = request_id_of(metadata), time.monotonic()
        with self.in_flight:
            try:
                self.check(metadata, request, role)
                answer = await work(request)
            except Failure as caught:
                failure = caught
            except asyncio.CancelledError:
                self._observe(
                    rpc, "", Priority.INTERACTIVE, grpc.StatusCode.CANCELLED, arrived, request_id
                )
                raise
            except Exception:
                _log.exception("a call failed", extra={"rpc": rpc, "request_id": request_id})
                failure = fault(request_id)
            else:
                self._observe(
                    rpc, "", Priority.INTERACTIVE, grpc.StatusCode.OK, arrived, request_id
                )
                return answer
            await self.refuse(rpc, context, failure, request_id, arrived, "", Priority.INTERACTIVE)
        raise AssertionError("refuse() always raises")

    async def refuse(
        self,
        rpc: str,
        context: Context,
        failure: Failure,
        request_id: str,
        arrived: float,
        model: str,
        priority: Priority,
    ) -> None:
        """End a call with a failure; raises what grpc wants raised."""
        code = code_of(failure)
        if code in _REFUSALS:
            self.metrics.refused.labels(reason_name(failure.reason).lower()).inc()
        self._observe(rpc, model, priority, code, arrived, request_id, str(failure))
        await context.abort_with_status(to_grpc(failure, request_id))

    def check(self, metadata: Mapping[str, str | bytes], request: Message, role: Role) -> None:
        """What can be refused before the request is looked into.

        Raises:
            Failure: DRAINING, bad credentials, or too large a message.
        """
        if self.draining:
            raise Failure(errors_pb2.ERROR_REASON_DRAINING, "the worker is shutting down")
        self._access.check(metadata.items(), role)
        size = request.ByteSize()
        if size > self.settings.max_message_bytes:
            raise Failure(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"{size} bytes, at most {self.settings.max_message_bytes} are allowed",
            )

    def open(
        self,
        options: call_pb2.RequestOptions,
        priority: Priority,
        request_id: str,
        arrived: float,
        time_left: float | None,
    ) -> Call:
        """Find the model and fix the deadline.

        Raises:
            Failure: no such model, or too many expected spaces.
        """
        if len(options.expected_space_ids) > _MAX_EXPECTED_SPACES:
            raise Failure(
                errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
                f"at most {_MAX_EXPECTED_SPACES} are allowed",
                "options.expected_space_ids",
            )
        default = {
            Priority.CONTROL: self.settings.control_deadline,
            Priority.INTERACTIVE: self.settings.interactive_deadline,
            Priority.BULK: self.settings.bulk_deadline,
        }[priority]
        return Call(
            request_id=request_id,
            served=self.catalogue.find(options.model),
            priority=priority,
            deadline=arrived + (default if time_left is None else time_left),
            arrived=arrived,
            expected_spaces=tuple(options.expected_space_ids),
        )

    @contextmanager
    def admit_items(self, count: int, field: str) -> Iterator[None]:
        """While a request's items are under way; before anything is decoded.

        Raises:
            Failure: none, too many, or QUEUE_FULL.
        """
        if not count:
            raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "at least one is needed", field)
        if count > self.settings.max_items:
            raise Failure(
                errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
                f"{count} items, at most {self.settings.max_items} are allowed",
                field,
            )
        with self.book(count):
            yield

    @contextmanager
    def book(self, count: int) -> Iterator[None]:
        """While `count` items are under way in this front.

        Raises:
            Failure: QUEUE_FULL.
        """
        if self._items + count > self.settings.max_queued_items:
            raise Failure(
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"{self._items} items are waiting, at most {self.settings.max_queued_items} may",
            )
        self._items += count
        try:
            yield
        finally:
            self._items -= count

    @contextmanager
    def one_more_stream(self) -> Iterator[None]:
        """While a stream is open.

        Raises:
            Failure: QUEUE_FULL.
        """
        if self._streams >= self.settings.max_streams:
            raise Failure(
                errors_pb2.ERROR_REASON_QUEUE_FULL,
                f"{self._streams} streams are open, no more are allowed",
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def end_stream(
        self,
        context: Context,
        failure: Failure | None,
        request_id: str,
        started: float,
        model: str,
    ) -> None:
        """Account for a stream; raises what grpc wants raised if it failed."""
        rpc, priority = "StreamPerception", Priority.CONTROL
        if failure is None:
            self._observe(rpc, model, priority, grpc.StatusCode.OK, started, request_id)
        else:
            await self.refuse(rpc, context, failure, request_id, started, model, priority)

    async def compute(self, call: Call, job: Job) -> JobResult:
        """Run a job and note where its time went."""
        result = await self.engine.submit(job)
        call.account(result)
        return result

    def _observe(
        self,
        rpc: str,
        model: str,
        priority: Priority,
        code: grpc.StatusCode,
        arrived: float,
        request_id: str,
        error: str = "",
    ) -> None:
        took = time.monotonic() - arrived
        self.metrics.request_duration.labels(rpc, model, priority.name.lower(), code.name).observe(
            took
        )
        level = logging.DEBUG if code is grpc.StatusCode.OK else logging.INFO
        _log.log(
            level,
            "call",
            extra={
                "rpc": rpc,
                "model": model,
                "code": code.name,
                "seconds": round(took, 6),
                "request_id": request_id,
                **({"error": error} if error else {}),
            },
        )
