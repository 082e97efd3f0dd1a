"""What every call passes through, whatever it asks: the one place for what all share.

Credentials, size, draining, model and spaces, deadline, request id, failures, metrics,
log. A servicer's method is left with reading its request and building its answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from tectum.v1 import call_pb2, errors_pb2

from tectum_server.worker.failure import Failure, reason_name
from tectum_server.worker.front.access import Access, Role
from tectum_server.worker.front.catalogue import Catalogue, ServedModel
from tectum_server.worker.front.status import code_of, to_grpc
from tectum_server.worker.front.wire import checked_enum, duration
from tectum_server.worker.in_flight import InFlight
from tectum_server.worker.jobs import Engine, ItemFailure, Job, JobResult, Priority
from tectum_server.worker.metrics import FrontMetrics
from tectum_server.worker.settings import WorkerSettings

__all__ = ["Call", "Calls", "Context"]

_log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]
_Answer = TypeVar("_Answer")
_MAX_EXPECTED_SPACES = 8
_REFUSALS = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})


@dataclass(slots=True)
class Call:
    """One request on its way through the front."""

    request_id: str
    served: ServedModel
    priority: Priority
    deadline: float
    """Monotonic seconds."""
    arrived: float
    """Monotonic seconds."""
    expected_spaces: tuple[str, ...] = ()
    decode_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_size: int = 0
    version: str = field(default="")

    def info(self) -> call_pb2.ResponseInfo:
        """How the answer was made, as every response says it."""
        timings = call_pb2.Timings(
            queue=duration(self.queue_seconds),
            compute=duration(self.compute_seconds),
            total=duration(time.monotonic() - self.arrived),
            batch_size=self.batch_size,
        )
        if self.decode_seconds:
            timings.decode.CopyFrom(duration(self.decode_seconds))
        return call_pb2.ResponseInfo(
            model=self.served.entry.name,
            version=self.version or self.served.entry.version,
            numerics=self.served.description.numerics,
            timings=timings,
            request_id=self.request_id,
        )

    def for_frame(self, deadline: float) -> Call:
        """A copy for one frame of a stream, with a clock and a deadline of its own."""
        return replace(self, deadline=deadline, arrived=time.monotonic())

    def account(self, result: JobResult) -> None:
        """Add where one job's time went."""
        self.queue_seconds = max(self.queue_seconds, result.queue_seconds)
        self.compute_seconds += result.compute_seconds
        self.batch_size = max(self.batch_size, result.batch_size)
        self.version = result.version

    def answer_in(self, *names: str) -> None:
        """Say which spaces the answer's vectors live in, before anything is computed.

        Raises:
            Failure: CAPABILITY_MISSING, or SPACE_MISMATCH with what the caller expects.
        """
        found = [self.served.space(name) for name in names]
        for expected in self.expected_spaces:
            if expected not in found:
                raise Failure(
                    errors_pb2.ERROR_REASON_SPACE_MISMATCH,
                    f"the caller expects space {expected[:40]!r}; "
                    f"this answer's vectors live in {', '.join(found)}",
                    "options.expected_space_ids",
                )


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
        self.draining = False
        self._access = access
        self._items = 0
        self._streams = 0

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
                call = self.open(request.options, priority, request_id, arrived, _left(context))
                model = call.served.entry.name
                async with asyncio.timeout_at(_loop_time(call.deadline)):
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
                failure = _fault(request_id)
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
                failure = _fault(request_id)
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


def item_failure(failure: ItemFailure, field: str) -> Failure:
    """An engine's item failure as the front raises it."""
    return Failure(errors_pb2.ErrorReason.ValueType(failure.reason), failure.message, field)


def read_priority(options: call_pb2.RequestOptions, default: Priority) -> Priority:
    """The request's priority.

    Raises:
        Failure: no such priority.
    """
    number = checked_enum(options.priority, call_pb2.Priority, "options.priority")
    return Priority(number) if number else default


def request_id_of(metadata: Mapping[str, str | bytes]) -> str:
    """The caller's `x-request-id` if it is sane, else a new one."""
    sent = metadata.get("x-request-id", "")
    if isinstance(sent, str) and 0 < len(sent) <= 128 and sent.isprintable():
        return sent
    return uuid.uuid4().hex


def metadata_of(context: Context) -> dict[str, str | bytes]:
    entries: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return {key: value for key, value in entries}  # noqa: C416 - the entries are not plain tuples


def _left(context: Context) -> float | None:
    """Seconds until the caller's own deadline; None if it set none."""
    left = context.time_remaining()
    # grpc tells "none" as a year or more in some versions.
    return None if left is None or left > 86_400 * 300 else float(left)


def _loop_time(monotonic: float) -> float:
    """The event loop's time for a moment on the system's monotonic clock."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()


def _fault(request_id: str) -> Failure:
    return Failure(
        errors_pb2.ERROR_REASON_INTERNAL,
        f"the worker failed on this request; its log has the reason under {request_id}",
    )
