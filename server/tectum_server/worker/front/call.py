"""One request on its way through the front, and how a call's metadata and options are read.

What every call passes through is `calls`; here is what it carries.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from tectum.v1 import call_pb2, errors_pb2
from tectum_server.worker.durations import Span, covered, duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.catalogue import ServedModel
from tectum_server.worker.front.memory import Share
from tectum_server.worker.front.messages.parts import Parts
from tectum_server.worker.front.messages.wire import checked_enum
from tectum_server.worker.jobs import ItemFailure, JobResult, Priority

__all__ = [
    "Call",
    "Context",
    "Record",
    "fault",
    "item_failure",
    "loop_time",
    "metadata_of",
    "read_priority",
    "request_id_of",
    "shutting_down",
    "time_left",
]

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class Record:
    """What is told of a call once it has ended, however it ends."""

    rpc: str
    request_id: str
    arrived: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""
    priority: Priority = Priority.INTERACTIVE
    model: str = ""
    """Empty until it is found: a name that a caller made up is no label."""
    frames: Counter[str] = field(default_factory=Counter)
    """For a stream: its frames by what became of them."""


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
    memory: Share
    """What its message and its pixels take."""
    expected_spaces: tuple[str, ...] = ()
    decode_seconds: float = 0.0
    compute_seconds: float = 0.0
    in_engine: tuple[Span, ...] = ()
    """When each of its jobs waited or was computed; side by side, or one after the other."""
    batch_size: int = 0
    version: str = ""
    parts: Parts = field(default_factory=Parts)
    """Pictures of its message that are still there."""
    sent: float | None = None
    """When its first job went to an engine, monotonic seconds; None: not yet."""

    def info(self) -> call_pb2.ResponseInfo:
        """How the answer was made, as every response says it."""
        in_engine = covered(self.in_engine)
        computed = min(self.compute_seconds, in_engine)  # engines may have done so side by side
        timings = call_pb2.Timings(
            queue=duration(in_engine - computed),
            compute=duration(computed),
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

    def for_frame(self, deadline: float, memory: Share) -> Call:
        """A copy for one frame of a stream, with a clock, a deadline and memory of its own."""
        return replace(
            self,
            deadline=deadline,
            arrived=time.monotonic(),
            memory=memory,
            decode_seconds=0.0,
            compute_seconds=0.0,
            in_engine=(),
        )

    def account(self, result: JobResult, sent: float) -> None:
        """Add where the time went of one job, which was sent to an engine then."""
        took = result.queue_seconds + result.compute_seconds
        self.in_engine = (*self.in_engine, (sent, sent + took))
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


def item_failure(failure: ItemFailure, field: str) -> Failure:
    """An engine's item failure as the front raises it."""
    reason = errors_pb2.ErrorReason.ValueType(failure.reason)
    return Failure(reason, failure.message, failure.field or field)


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
    """What the caller sent beside its request."""
    entries: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return {key: value for key, value in entries}  # noqa: C416 - the entries are not plain tuples


def time_left(context: Context) -> float | None:
    """Seconds until the caller's own deadline; None if it set none."""
    left = context.time_remaining()
    # grpc tells "none" as a year or more in some versions.
    return None if left is None or left > 86_400 * 300 else float(left)


def loop_time(monotonic: float) -> float:
    """The event loop's time for a moment on the system's monotonic clock."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()


def fault(request_id: str) -> Failure:
    """What is said of a fault of the worker's own."""
    return Failure(
        errors_pb2.ERROR_REASON_INTERNAL,
        f"the worker failed on this request; its log has the reason under {request_id}",
    )


def shutting_down() -> Failure:
    """What is said to all that is new once the worker drains."""
    return Failure(errors_pb2.ERROR_REASON_DRAINING, "the worker is shutting down")
