"""StreamPerception: one live camera, one setup, and every frame gets exactly one answer.

Three tasks share a stream. The reader takes frames off the wire and keeps only the
newest; one it replaces is answered SUPERSEDED. The worker computes the newest frame and,
for latent actions, pairs it with the frame one model interval back. The writer sends
answers. All that waits is bounded: one frame, a ring of recent ones, and an outbox that
stops the reader, and through flow control the client, when nobody reads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, image_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front import latents
from tectum_server.worker.front.batches import compute_one
from tectum_server.worker.front.call import (
    Call,
    Context,
    fault,
    metadata_of,
    read_priority,
    request_id_of,
)
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.status import item_error
from tectum_server.worker.front.vectors import VectorRequest
from tectum_server.worker.front.wire import duration, out_of_range, read_seconds, read_timestamp
from tectum_server.worker.jobs import EmbedImages, Item, LatentActions, Priority

__all__ = ["PerceptionStream"]

_log = logging.getLogger(__name__)
_DEFAULT_LIFESPAN, _LONGEST_LIFESPAN = 1.0, 60.0
_RING_FRAMES = 64
_OUTBOX = 64
_Request = stream_pb2.StreamPerceptionRequest
_Response = stream_pb2.StreamPerceptionResponse


@dataclass(slots=True, eq=False)
class _Frame:
    """A frame on its way."""

    frame_id: int
    image: image_pb2.Image
    captured_at: float
    """Seconds since the epoch, on the camera's clock."""
    timed: bool
    """Whether the client said when it was captured."""
    expires: float
    """Monotonic seconds."""
    pixels: NDArray[np.uint8] | None = None
    """Once decoded."""


@dataclass(frozen=True, slots=True)
class _Setup:
    """What the stream was asked for."""

    call: Call
    """Model, spaces and request id; each frame works on a copy."""
    vector: VectorRequest | None
    """None: no vectors."""
    interval: latents.Interval | None
    """None: no latent actions."""
    decode_actions: bool
    lifespan: float


class PerceptionStream:
    """One stream.

    Args:
        calls: the corridor all calls share.
        images: reads frames.
        context: the stream's own.
    """

    def __init__(self, calls: Calls, images: ImageReader, context: Context) -> None:
        self._calls = calls
        self._images = images
        self._context = context
        self._metadata = metadata_of(context)
        self._request_id = request_id_of(self._metadata)
        self._newest: _Frame | None = None
        self._arrived = asyncio.Event()
        self._ended = False
        self._receiving = False
        self._ring: deque[_Frame] = deque(maxlen=_RING_FRAMES)
        self._outbox: asyncio.Queue[_Response | None] = asyncio.Queue(_OUTBOX)

    async def run(self) -> None:
        """Serve the stream to its end."""
        observed = stream_pb2.StreamSetup()
        first = await self._receive()
        if first is None:
            return
        started = time.monotonic()
        with self._calls.in_flight:
            try:
                setup = self._set_up(first, started)
                observed = first.setup
                with self._calls.one_more_stream():
                    await self._serve(setup)
            except Failure as failure:
                await self._calls.end_stream(
                    self._context, failure, self._request_id, started, observed.options.model
                )
            except Exception:
                extra = {"rpc": "StreamPerception", "request_id": self._request_id}
                _log.exception("a call failed", extra=extra)
                await self._calls.end_stream(
                    self._context,
                    fault(self._request_id),
                    self._request_id,
                    started,
                    observed.options.model,
                )
            else:
                await self._calls.end_stream(
                    self._context, None, self._request_id, started, setup.call.served.entry.name
                )

    def _set_up(self, first: _Request, started: float) -> _Setup:
        if first.WhichOneof("message") != "setup":
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING, "a stream begins with its setup", "setup"
            )
        asked = first.setup
        self._calls.check(self._metadata, asked, "infer")
        if not asked.embed and not asked.latent_actions:
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING,
                "embed, latent_actions or both must be asked for",
                "setup.embed",
            )
        priority = read_priority(asked.options, Priority.CONTROL)
        call = self._calls.open(asked.options, priority, self._request_id, started, None)
        if asked.latent_actions:
            latents.require(call, asked.decode_actions, predict_frames=False)
        spaces = ["latent_action"] if asked.latent_actions else []
        expected, call.expected_spaces = call.expected_spaces, ()
        vector = VectorRequest.of(asked.vector, call) if asked.embed else None
        call.expected_spaces = expected
        call.answer_in(*([vector.space] if vector else []), *spaces)
        spec = call.served.description.input.latent_action
        return _Setup(
            call=call,
            vector=vector,
            interval=latents.Interval(spec) if asked.latent_actions else None,
            decode_actions=asked.decode_actions,
            lifespan=self._lifespan(asked, _DEFAULT_LIFESPAN, "setup.lifespan"),
        )

    async def _serve(self, setup: _Setup) -> None:
        ready = stream_pb2.StreamReady(info=setup.call.info(), worker_time=Timestamp())
        ready.worker_time.GetCurrentTime()
        await self._context.write(_Response(ready=ready))
        writer = asyncio.create_task(self._write())
        reader = asyncio.create_task(self._read(setup))
        hurrier = asyncio.create_task(self._hurry(reader))
        tasks = (reader, writer, hurrier)
        try:
            await self._work(setup)
            await self._outbox.put(None)
            await writer  # what was answered is sent, also where the reader failed
            await reader  # its failure, if it had one, is the stream's
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hurry(self, reader: asyncio.Task[None]) -> None:
        """Once the worker drains, wait no longer for a client that says nothing."""
        await self._calls.until_draining()
        if self._receiving:
            reader.cancel()

    async def _read(self, setup: _Setup) -> None:
        """Frames off the wire; the newest waits, the one it replaces is answered."""
        last_id = -1
        try:
            while not self._calls.draining and (request := await self._receive()) is not None:
                frame = self._frame(request, setup, last_id)
                last_id = frame.frame_id
                replaced, self._newest = self._newest, frame
                self._ring.append(frame)
                self._arrived.set()
                if replaced is not None:
                    self._calls.metrics.superseded_frames.inc()
                    await self._answer(replaced, stream_pb2.FRAME_STATUS_SUPERSEDED)
            if self._calls.draining:
                raise _draining()
        except asyncio.CancelledError:
            if self._calls.draining:
                raise _draining() from None
            raise
        finally:
            self._ended = True
            self._arrived.set()

    async def _work(self, setup: _Setup) -> None:
        """The newest frame, again and again, until the client is done and none waits."""
        while True:
            if self._newest is None:
                if self._ended:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            frame, self._newest = self._newest, None
            if time.monotonic() >= frame.expires:
                await self._stale(frame)
                continue
            try:
                result = await self._compute(frame, setup)
            except Failure as failure:
                if failure.reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED:
                    await self._stale(frame)
                    continue
                error = item_error(failure, "frame")
                await self._answer(frame, stream_pb2.FRAME_STATUS_FAILED, error)
                continue
            await self._outbox.put(_Response(result=result))

    async def _compute(self, frame: _Frame, setup: _Setup) -> stream_pb2.FrameResult:
        """One frame's answer.

        Raises:
            Failure: it has none.
        """
        call = setup.call.for_frame(frame.expires)
        pixels = await self._pixels(frame, call)
        earlier = self._one_interval_back(frame, setup.interval)
        result = stream_pb2.FrameResult(frame_id=frame.frame_id, status=stream_pb2.FRAME_STATUS_OK)

        async def embed() -> None:
            if setup.vector is None:
                return
            operation = EmbedImages(setup.vector.vector)
            output = await compute_one(self._calls, call, operation, Item((pixels,)))
            result.embedding.CopyFrom(setup.vector.embedding(call, output))

        async def name_the_change() -> None:
            if setup.interval is None:
                return
            if earlier is None:
                result.latent_action_status = stream_pb2.LATENT_ACTION_STATUS_INTERVAL_UNAVAILABLE
                return
            operation = LatentActions(setup.decode_actions, predict_frame=False)
            try:
                pair = Item((await self._pixels(earlier, call), pixels))
            except Failure:  # that frame's own answer has the reason; this one is sound
                result.latent_action_status = stream_pb2.LATENT_ACTION_STATUS_INTERVAL_UNAVAILABLE
                return
            output = await compute_one(self._calls, call, operation, pair)
            gap = frame.captured_at - earlier.captured_at
            answer = latents.latent_action(output, call, latents.FLOAT32, gap)
            result.latent_action.CopyFrom(answer)
            result.latent_action_status = stream_pb2.LATENT_ACTION_STATUS_OK
            result.earlier_frame_id = earlier.frame_id

        with self._calls.book(2):
            await asyncio.gather(embed(), name_the_change())
        result.info.CopyFrom(call.info())
        result.age.CopyFrom(duration(self._age(frame)))
        return result

    def _one_interval_back(self, frame: _Frame, interval: latents.Interval | None) -> _Frame | None:
        """The frame nearest one interval earlier, if it lies within the tolerance."""
        if interval is None or not frame.timed:
            return None
        wanted = frame.captured_at - interval.seconds
        older = [f for f in self._ring if f.frame_id < frame.frame_id and f.timed]
        nearest = min(older, key=lambda f: abs(f.captured_at - wanted), default=None)
        if nearest is None or not interval.holds(frame.captured_at - nearest.captured_at):
            return None
        return nearest

    async def _pixels(self, frame: _Frame, call: Call) -> NDArray[np.uint8]:
        if frame.pixels is None:
            frame.pixels, seconds = await self._images.read(frame.image, "frame.image")
            call.decode_seconds += seconds
        return frame.pixels

    def _frame(self, request: _Request, setup: _Setup, last_id: int) -> _Frame:
        if request.WhichOneof("message") != "frame":
            raise out_of_range("message", "after the setup come frames alone")
        sent = request.frame
        if sent.frame_id <= last_id:
            raise out_of_range(
                "frame.frame_id",
                f"rises from frame to frame; found {sent.frame_id} after {last_id}",
            )
        if request.ByteSize() > self._calls.settings.max_message_bytes:
            raise Failure(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"at most {self._calls.settings.max_message_bytes} bytes are allowed",
                "frame",
            )
        now = time.time()
        timed = sent.HasField("captured_at")
        captured_at = read_timestamp(sent.captured_at) if timed else now
        lifespan = self._lifespan(sent, setup.lifespan, "frame.lifespan")
        # A camera's clock that runs ahead makes no frame younger than its arrival.
        age = max(0.0, now - captured_at)
        return _Frame(
            frame_id=sent.frame_id,
            image=sent.image,
            captured_at=captured_at,
            timed=timed,
            expires=time.monotonic() + lifespan - age,
        )

    @staticmethod
    def _lifespan(
        message: stream_pb2.StreamSetup | stream_pb2.StreamFrame, default: float, field: str
    ) -> float:
        if not message.HasField("lifespan"):
            return default
        return read_seconds(message.lifespan, field, at_most=_LONGEST_LIFESPAN)

    async def _stale(self, frame: _Frame) -> None:
        self._calls.metrics.stale_frames.inc()
        await self._answer(frame, stream_pb2.FRAME_STATUS_STALE)

    async def _answer(
        self,
        frame: _Frame,
        status: stream_pb2.FrameStatus.ValueType,
        error: errors_pb2.ItemError | None = None,
    ) -> None:
        result = stream_pb2.FrameResult(
            frame_id=frame.frame_id, status=status, error=error, age=duration(self._age(frame))
        )
        await self._outbox.put(_Response(result=result))

    @staticmethod
    def _age(frame: _Frame) -> float:
        return max(0.0, time.time() - frame.captured_at)

    async def _receive(self) -> _Request | None:
        """The next message; None at the client's end of the stream."""
        self._receiving = True
        try:
            message = await self._context.read()
        finally:
            self._receiving = False
        return None if message is grpc.aio.EOF else message

    async def _write(self) -> None:
        while (response := await self._outbox.get()) is not None:
            await self._context.write(response)


def _draining() -> Failure:
    return Failure(errors_pb2.ERROR_REASON_DRAINING, "the worker is shutting down")
