"""What a stream's client is told: one answer a frame, in order, and what else it has asked for.

All that waits is bounded: whoever answers waits for a client that does not read. How old a frame
is, and whether it is too old, is judged as its answer leaves.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Context, Record
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.status import item_error
from tectum_server.worker.front.stream.frames import Frame

__all__ = ["Outgoing"]

_OUTBOX = 64
"""Messages that may wait to be sent."""
_ANSWERS = 2
"""Of these, so many with what the engine found, the one that is being sent included: a link is kept
busy by two, and more would only grow old behind a client that does not read."""
_TOO_LATE = frozenset(
    {errors_pb2.ERROR_REASON_DEADLINE_PASSED, errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE}
)
"""Of a frame's age: one that could never be answered within its lifespan is refused otherwise."""
_OK, _STALE = stream_pb2.FRAME_STATUS_OK, stream_pb2.FRAME_STATUS_STALE
_Response = stream_pb2.StreamPerceptionResponse


@dataclass(frozen=True, slots=True)
class _Said:
    """What waits to be sent."""

    response: _Response
    frame: Frame | None = None
    """Whose answer it is; None: no frame's."""
    leaves_by: float | None = None
    """Until when what the engine found is of use, monotonic seconds; None: it found nothing."""


class Outgoing:
    """One stream's.

    Args:
        calls: where what is refused is counted.
        context: the stream's own.
        record: where its frames are counted, by what became of them.
    """

    def __init__(self, calls: Calls, context: Context, record: Record) -> None:
        self._calls = calls
        self._context = context
        self._record = record
        self._waiting: asyncio.Queue[_Said | None] = asyncio.Queue(_OUTBOX)
        self._places = asyncio.Semaphore(_ANSWERS)

    async def send(self) -> None:
        """Send what is put, until the end is."""
        while (said := await self._waiting.get()) is not None:
            if said.frame is not None:
                self._judge(said.response.result, said.frame, said.leaves_by)
            if said.response.HasField("clock"):
                said.response.clock.sent_time.GetCurrentTime()
            await self._context.write(said.response)
            if said.leaves_by is not None:
                self._places.release()

    async def end(self) -> None:
        """Nothing more is put."""
        await self._waiting.put(None)

    async def put(self, response: _Response) -> None:
        """Say anything but what became of a frame."""
        await self._waiting.put(_Said(response))

    async def answer(self, result: stream_pb2.FrameResult, frame: Frame) -> None:
        """Say what the engine found of a frame; waits while a client reads none of it.

        What the engine found too late, by as much as a batch, is told; if it waits here for
        another lifespan it is not.
        """
        found = time.monotonic()
        leaves_by = frame.expires if found < frame.expires else found + frame.lifespan
        await self._places.acquire()
        await self._waiting.put(_Said(_Response(result=result), frame, leaves_by))

    async def without(self, frame: Frame, why: Failure | None) -> None:
        """Say that a frame has no answer of the engine's.

        Args:
            frame: the frame.
            why: it has none; None: a newer frame outdid it.
        """
        if why is None:
            await self._over(frame, stream_pb2.FRAME_STATUS_SUPERSEDED)
        elif why.reason in _TOO_LATE:
            await self.stale(frame)
        else:
            await self.failed(frame, why)

    async def stale(self, frame: Frame) -> None:
        """Say that a frame has outlived its lifespan."""
        await self._over(frame, _STALE)

    async def failed(self, frame: Frame, failure: Failure) -> None:
        """Say why a frame can have no answer."""
        self._calls.count_refusal(failure)
        await self._over(frame, stream_pb2.FRAME_STATUS_FAILED, item_error(failure, "frame"))

    async def _over(
        self,
        frame: Frame,
        status: stream_pb2.FrameStatus.ValueType,
        error: errors_pb2.ItemError | None = None,
    ) -> None:
        result = stream_pb2.FrameResult(frame_id=frame.frame_id, status=status, error=error)
        await self._waiting.put(_Said(_Response(result=result), frame))

    def _judge(self, result: stream_pb2.FrameResult, frame: Frame, leaves_by: float | None) -> None:
        """What is true of a frame now that its answer leaves, and count it."""
        if leaves_by is not None and time.monotonic() >= leaves_by:
            late = stream_pb2.FrameResult(frame_id=result.frame_id, status=_STALE)
            result.CopyFrom(late)
        result.age.CopyFrom(duration(frame.age))
        status = stream_pb2.FrameStatus.Name(result.status).removeprefix("FRAME_STATUS_")
        self._record.frames[status.lower()] += 1
        self._calls.metrics.stream_frames.labels(self._record.model, status).inc()
        if result.status == _OK:
            self._calls.metrics.stream_age.observe(frame.age)
