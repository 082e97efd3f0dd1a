"""What a stream's client is told: one answer a frame, in order, and what else it has asked for.

All that waits is bounded: whoever answers waits for a client that does not read.
"""

from __future__ import annotations

import asyncio

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Context, Record
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.status import item_error
from tectum_server.worker.front.stream.frames import Frame

__all__ = ["Outgoing"]

_OUTBOX = 64
_TOO_LATE = frozenset(
    {errors_pb2.ERROR_REASON_DEADLINE_PASSED, errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE}
)
"""Of a frame's age: one that could never be answered within its lifespan is refused otherwise."""
_Response = stream_pb2.StreamPerceptionResponse


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
        self._waiting: asyncio.Queue[_Response | None] = asyncio.Queue(_OUTBOX)

    async def send(self) -> None:
        """Send what is put, until the end is."""
        while (response := await self._waiting.get()) is not None:
            if response.HasField("clock"):
                response.clock.sent_time.GetCurrentTime()
            await self._context.write(response)

    async def end(self) -> None:
        """Nothing more is put."""
        await self._waiting.put(None)

    async def put(self, response: _Response) -> None:
        """Say anything but what became of a frame."""
        await self._waiting.put(response)

    async def answer(self, result: stream_pb2.FrameResult) -> None:
        """Say what became of a frame."""
        status = stream_pb2.FrameStatus.Name(result.status)
        self._record.frames[status.removeprefix("FRAME_STATUS_").lower()] += 1
        await self._waiting.put(_Response(result=result))

    async def without(self, frame: Frame, why: Failure | None) -> None:
        """Say that a frame has no answer of the engine's.

        Args:
            frame: the frame.
            why: it has none; None: a newer frame outdid it.
        """
        if why is None:
            self._calls.metrics.superseded_frames.inc()
            await self._over(frame, stream_pb2.FRAME_STATUS_SUPERSEDED)
        elif why.reason in _TOO_LATE:
            await self.stale(frame)
        else:
            await self.failed(frame, why)

    async def stale(self, frame: Frame) -> None:
        """Say that a frame has outlived its lifespan."""
        self._calls.metrics.stale_frames.inc()
        await self._over(frame, stream_pb2.FRAME_STATUS_STALE)

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
        age = duration(frame.age)
        await self.answer(
            stream_pb2.FrameResult(frame_id=frame.frame_id, status=status, error=error, age=age)
        )
