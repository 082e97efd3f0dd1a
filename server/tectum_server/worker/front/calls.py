"""What every call passes through, whatever it asks: the one place for what all share.

Size, draining, model and spaces, deadline, request id, failures, metrics, log. A servicer's
method is left with reading its request and building its answer; who may call at all was asked
before the request came (`admission`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import grpc

from tectum.v1 import call_pb2, errors_pb2
from tectum_server.worker.failure import Failure, reason_name
from tectum_server.worker.front.bookings import Bookings
from tectum_server.worker.front.call import (
    Call,
    Context,
    Record,
    fault,
    loop_time,
    metadata_of,
    read_priority,
    request_id_of,
    shutting_down,
    time_left,
)
from tectum_server.worker.front.catalogue import Catalogue
from tectum_server.worker.front.memory import Memory
from tectum_server.worker.front.messages.parts import Parts
from tectum_server.worker.front.messages.unpacking import Packed
from tectum_server.worker.front.status import brief, code_of, to_grpc
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import Engine, Job, JobResult, Priority, Renewal
from tectum_server.worker.metrics import FrontMetrics
from tectum_server.worker.settings import WorkerSettings

__all__ = ["Calls"]

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_MAX_EXPECTED_SPACES = 8
_EXPECT_AGAIN = 1.0
"""Seconds after which engines are told again that CONTROL comes; they expect it for ten."""
_OTHER_MODEL = frozenset(
    {errors_pb2.ERROR_REASON_SPACE_MISMATCH, errors_pb2.ERROR_REASON_MODEL_NOT_FOUND}
)
_REFUSALS = frozenset(
    {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""What operators look after; what else is wrong with a request is for its caller."""


class Calls:
    """The corridor.

    Args:
        settings: limits and deadlines.
        engine: what computes.
        catalogue: what serves.
        metrics: where requests are counted.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        engine: Engine,
        catalogue: Catalogue,
        metrics: FrontMetrics,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.catalogue = catalogue
        self.metrics = metrics
        self.in_flight = InFlight()
        self.memory = Memory(settings.request_memory_bytes)
        self._draining = asyncio.Event()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._gave_up = False
        self._bookings = Bookings(settings.places, self._missed)
        self._expects_until = 0.0
        self._streams = 0

    @property
    def draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._draining.set()

    def give_up(self) -> int:
        """Fail what is still under way with DRAINING, for another worker to do; tells how many."""
        self._gave_up = True
        for task in self._under_way:
            task.cancel()
        return len(self._under_way)

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
        record = Record(rpc, request_id_of(metadata_of(context)))

        async def answer() -> _Answer:
            self.refuse_if_draining()
            parts = Parts()
            message, size = self.unpack(request, parts=parts)
            record.priority = read_priority(message.options, Priority.INTERACTIVE)
            left = time_left(context)
            while True:
                call = self.open(message.options, record, left)
                call.parts = parts
                try:
                    call.memory.take_message(size)
                    async with asyncio.timeout_at(loop_time(call.deadline)):
                        return await work(message, call)
                except TimeoutError:
                    raise Failure(
                        errors_pb2.ERROR_REASON_DEADLINE_PASSED,
                        "the deadline passed before the answer was ready",
                    ) from None
                except Failure as failure:
                    if not self.overtaken(call, failure):
                        raise
                finally:
                    call.memory.release()

        return await self.account(record, context, answer)

    async def admin(
        self,
        rpc: str,
        request: Any,
        context: Context,
        work: Callable[[Any], Awaitable[_Answer]],
    ) -> _Answer:
        """Answer a ModelService call."""

        async def answer() -> _Answer:
            self.refuse_if_draining()
            message, _ = self.unpack(request)
            return await work(message)

        record = Record(rpc, request_id_of(metadata_of(context)))
        return await self.account(record, context, answer)

    async def account(
        self, record: Record, context: Context, work: Callable[[], Awaitable[_Answer]]
    ) -> _Answer:
        """Do a call's work and see to its end: failures told, measured and logged.

        Raises:
            What grpc wants raised of a call that failed.
        """
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("grpc runs each call in a task of its own")
        with self.in_flight:
            self._under_way.add(task)
            try:
                answer = await work()
            except Failure as caught:
                # Its traceback would keep the request's pixels until the next garbage collection.
                failure = caught.with_traceback(None)
            except asyncio.CancelledError:
                if not self._gave_up:
                    self._observe(record, grpc.StatusCode.CANCELLED)
                    raise
                task.uncancel()
                failure = shutting_down()
            except Exception:
                extra = {"rpc": record.rpc, "request_id": record.request_id}
                _log.exception("a call failed", extra=extra)
                failure = fault(record.request_id)
            else:
                self._observe(record, grpc.StatusCode.OK)
                return answer
            finally:
                self._under_way.discard(task)
            code = code_of(failure)
            self.count_refusal(failure)
            self._observe(record, code, brief(str(failure)))
            await context.abort_with_status(to_grpc(failure, record.request_id))
        raise AssertionError("abort_with_status() always raises")

    def refuse_if_draining(self) -> None:
        """Let pass what comes in time: as a call begins, and again once its request is there.

        Raises:
            Failure: DRAINING.
        """
        if self.draining:
            raise shutting_down()

    def unpack(
        self, request: Packed, field: str = "", parts: Parts | None = None
    ) -> tuple[Any, int]:
        """The message, and how many bytes it came in.

        Args:
            request: as it came.
            field: what it is.
            parts: takes large pictures; None: they are copied with the rest.

        Raises:
            Failure: MESSAGE_TOO_LARGE, or why it cannot be unpacked.
        """
        size = len(request.data)
        if size > self.settings.max_message_bytes:
            raise Failure(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"{size} bytes, at most {self.settings.max_message_bytes} are allowed",
                field,
            )
        return request.unpack(request.data, parts), size

    def count_refusal(self, failure: Failure) -> None:
        """Count what was not taken, a call or one frame of a stream."""
        if code_of(failure) in _REFUSALS:
            self.metrics.refused.labels(reason_name(failure.reason).lower()).inc()

    def open(
        self, options: call_pb2.RequestOptions, record: Record, time_left: float | None
    ) -> Call:
        """Find the model and fix the deadline; whoever opens a call releases its memory.

        Raises:
            Failure: no such model, none in memory, or too many expected spaces.
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
        }[record.priority]
        served = self.catalogue.serving(options.model)
        record.model = served.entry.name
        return Call(
            request_id=record.request_id,
            served=served,
            priority=record.priority,
            deadline=record.arrived + (default if time_left is None else time_left),
            arrived=record.arrived,
            memory=self.memory.share(record.priority),
            expected_spaces=tuple(options.expected_space_ids),
        )

    def overtaken(self, call: Call, failure: Failure) -> bool:
        """Whether a call failed because its model was reloaded under it: the new one may answer."""
        return failure.reason in _OTHER_MODEL and not self.catalogue.serves(call.served)

    @contextmanager
    def admit_items(
        self, count: int, field: str, call: Call, asks: Mapping[str, int]
    ) -> Iterator[None]:
        """While a request's items are under way; before anything is decoded.

        Raises:
            Failure: none, too many, or what `book` raises.
        """
        self.check_count(count, field)
        with self.book(count, call, asks):
            yield

    def check_count(self, count: int, field: str) -> None:
        """Let pass as many items as a request may have: before any of them is looked at.

        Raises:
            Failure: none, or too many.
        """
        if not count:
            raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "at least one is needed", field)
        most = min(self.settings.max_items, self.settings.max_queued_items)
        if count > most:
            raise Failure(
                errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
                f"{count} items, at most {most} are allowed",
                field,
            )

    def book(self, count: int, call: Call, asks: Mapping[str, int]) -> AbstractContextManager[None]:
        """While a call's `count` items are under way in this front.

        Args:
            count: places that it takes; the higher classes keep theirs.
            call: whose.
            asks: how many items of which operation it asks the engine for first.

        Raises:
            Failure: QUEUE_FULL, or DEADLINE_UNREACHABLE by what the engines told.
        """
        now = time.monotonic()
        return self._bookings.book(count, call, asks, self.engine.outlooks(), now)

    def _missed(self, priority: int) -> None:
        """Have the engines expect CONTROL, of which they hear nothing; once in a while is enough.

        Else batches that are too long for all of its calls would stay so.
        """
        now = time.monotonic()
        if priority == Priority.CONTROL and now >= self._expects_until:
            self._expects_until = now + _EXPECT_AGAIN
            self.engine.expect_control()

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
            with self.metrics.streams_open.track_inprogress():
                yield
        finally:
            self._streams -= 1

    async def compute(self, call: Call, job: Job, renewal: Renewal | None = None) -> JobResult:
        """Run a job and note where its time went."""
        sent = time.monotonic()
        call.sent = call.sent or sent
        result = await self.engine.submit(job, renewal)
        call.account(result, sent)
        return result

    def _observe(self, record: Record, code: grpc.StatusCode, error: str = "") -> None:
        took = time.monotonic() - record.arrived
        priority = record.priority.name.lower()
        self.metrics.request_duration.labels(record.rpc, record.model, priority, code.name).observe(
            took
        )
        _log.info(
            "call",
            extra={
                "rpc": record.rpc,
                "model": record.model,
                "code": code.name,
                "seconds": round(took, 6),
                "request_id": record.request_id,
                **({"frames": dict(record.frames)} if record.frames else {}),
                **({"error": error} if error else {}),
            },
        )
