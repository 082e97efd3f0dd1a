"""StreamPerception: one live camera, one setup, and every frame gets exactly one answer.

Three tasks share a stream. The reader takes frames off the wire and keeps only the
newest; one it replaces is answered SUPERSEDED. The worker has that frame computed, or one
that is newer still by then (`answering`). The writer sends answers. All that waits is
bounded: a frame in the engine's line, one offered in its place and one after them, a ring
of recent ones where pairs are asked for, and an outbox that stops the reader, and through
flow control the client, when nobody reads.

A model that is reloaded under a stream answers from the next frame on, unless the setup
rules it out (its pinned spaces, its version, what it asks for): then that frame has
failed, and the stream ends as it would if it were opened now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.answering import Answering
from tectum_server.worker.front.call import (
    Context,
    Record,
    metadata_of,
    read_priority,
    request_id_of,
    shutting_down,
)
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.frames import Arrivals, Frame, Ring, read_lifespan
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.newest import Newest
from tectum_server.worker.front.status import item_error
from tectum_server.worker.front.stream_setup import Setup
from tectum_server.worker.front.unpacking import Packed
from tectum_server.worker.front.wire import out_of_range
from tectum_server.worker.jobs import Priority

__all__ = ["PerceptionStream"]

_SETUP_SECONDS = 5.0
"""So long a stream may hold its place before it has said what it wants."""
_OUTBOX = 64
_PROBE_BYTES = 64
"""Of a message that asks for the clock: nothing of it is counted against the worker's memory."""
_HANGING_UP = 0.02
"""Seconds from the end of what a client says to its cancellation, if it has hung up: grpc tells the
one and then the other, and a call that is over by then would count as one that went well."""
_Response = stream_pb2.StreamPerceptionResponse


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
        request_id = request_id_of(metadata_of(context))
        self._record = Record("StreamPerception", request_id, priority=Priority.CONTROL)
        self._newest = Newest()
        self._ring: Ring | None = None
        self._set_up_at = Timestamp()
        self._outbox: asyncio.Queue[_Response | None] = asyncio.Queue(_OUTBOX)

    async def run(self) -> None:
        """Serve the stream to its end."""
        await self._calls.account(self._record, self._context, self._converse)

    async def _converse(self) -> None:
        with self._calls.one_more_stream():
            try:
                async with asyncio.timeout(_SETUP_SECONDS):
                    first = await self._receive()
            except TimeoutError:
                raise Failure(
                    errors_pb2.ERROR_REASON_FIELD_MISSING,
                    f"a stream begins with its setup; none came within {_SETUP_SECONDS:g} s",
                    "setup",
                ) from None
            self._set_up_at.GetCurrentTime()
            if first is not None:
                await self._serve(self._set_up(first))

    def _set_up(self, packed: Packed) -> Setup:
        first, _ = self._calls.unpack(packed, "setup")
        if first.WhichOneof("message") != "setup":
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING, "a stream begins with its setup", "setup"
            )
        asked = first.setup
        if not asked.embed and not asked.latent_actions:
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING,
                "embed, latent_actions or both must be asked for",
                "setup.embed",
            )
        self._record.priority = read_priority(asked.options, Priority.CONTROL)
        call = self._calls.open(asked.options, self._record, None)
        return Setup.of(asked, call)

    async def _serve(self, setup: Setup) -> None:
        arrivals = Arrivals(read_lifespan(setup.asked))
        ready = stream_pb2.StreamReady(info=setup.call.info(), received_time=self._set_up_at)
        ready.info.ClearField("timings")
        ready.worker_time.GetCurrentTime()
        if setup.asked.tell_input:
            ready.image_input.CopyFrom(setup.image_input)
        await self._context.write(_Response(ready=ready))
        if setup.interval is not None:
            self._ring = Ring(setup.interval)
            self._calls.memory.on_shortage.add(self._ring.forget_the_useless)
        writer = asyncio.create_task(self._write())
        reader = asyncio.create_task(self._read(arrivals))
        over: Failure | None = None
        try:
            try:
                await self._work(setup)
            except Failure as failure:
                over = failure
            await self._outbox.put(None)
            await writer  # what was answered is sent, also where the stream fails
            if over is not None:
                raise over
            await reader  # its failure, if it had one, is the stream's
        finally:
            for task in (reader, writer):
                task.cancel()
            try:
                await asyncio.gather(reader, writer, return_exceptions=True)
            finally:
                self._forget_all()

    def _forget_all(self) -> None:
        """Hold no frame any more."""
        self._newest.clear()
        if self._ring is not None:
            self._calls.memory.on_shortage.discard(self._ring.forget_the_useless)
            self._ring.clear()

    async def _read(self, arrivals: Arrivals) -> None:
        """Frames off the wire; the newest waits, the one it replaces is answered."""
        try:
            while await self._read_one(arrivals):
                pass
        finally:
            self._newest.end()

    async def _read_one(self, arrivals: Arrivals) -> bool:
        """Whether there was one; nothing of it is held while the next is waited for."""
        packed = await self._receive()
        if packed is None:
            return False
        request, size = self._calls.unpack(packed, "frame")
        if request.WhichOneof("message") == "probe":
            if size > _PROBE_BYTES:
                raise out_of_range("probe", f"at most {_PROBE_BYTES} bytes, found {size}")
            reply = stream_pb2.ClockReply()
            reply.client_time.seconds = request.probe.client_time.seconds
            reply.client_time.nanos = request.probe.client_time.nanos
            reply.received_time.GetCurrentTime()
            await self._outbox.put(_Response(clock=reply))
            return True
        if request.WhichOneof("message") != "frame":
            raise out_of_range("message", "after the setup come frames and probes alone")
        spare = self._ring.shrink if self._ring is not None else None
        memory = self._calls.memory.share(self._record.priority, spare)
        frame = arrivals.read(request.frame, size, memory)
        del packed, request  # the frame alone knows when it is gone
        if frame.wrong is not None:
            frame.drop()
            await self._fail(frame, frame.wrong)
            return True
        if self._ring is not None:
            self._ring.add(frame)
        replaced = self._newest.put(frame)
        if replaced is not None:
            replaced.drop()
            await self._supersede(replaced)
        return True

    async def _work(self, setup: Setup) -> None:
        """The newest frame, again and again, until the client is done and none waits.

        Raises:
            Failure: the model serves no more, or no more so that it could answer.
        """
        following: Setup | None = setup
        while following is not None:
            following = await self._work_one(following)

    async def _work_one(self, setup: Setup) -> Setup | None:
        """Answer the newest frame; gives the setup for the next one, None if there is none.

        Nothing of a frame is held while the next is waited for.
        """
        frame = await self._newest.take()
        return None if frame is None else await self._work_on(frame, setup)

    async def _work_on(self, frame: Frame, setup: Setup) -> Setup:
        """Answer a frame, or a newer one in its place; gives the setup for the next one."""
        if time.monotonic() >= frame.expires:
            frame.drop()
            await self._stale(frame)
            return setup
        try:
            setup, before = self._renewed(setup), setup
        except Failure as failure:
            frame.drop()
            await self._fail(frame, failure)
            if failure.retry_delay is None:
                raise
            return setup
        place = Answering(self._calls, self._images, setup, self._ring, self._newest, frame)
        last: Callable[[], Awaitable[None]] | None = None
        try:
            if setup.asked.tell_input and not setup.resizes_as(before.image_input):
                changed = stream_pb2.InputChanged(image_input=setup.image_input)
                await self._outbox.put(_Response(input_changed=changed))
            result = await place.result()
        except Failure as failure:
            again = self._tries_again(place.frame, setup, failure, place.frame is not frame)
            if not (again and self._newest.put_back(place.frame)):
                place.frame.drop()
                last = partial(self._told_of, place.frame, None if again else failure)
        except BaseException:
            place.frame.drop()
            raise
        else:
            place.frame.drop()
            last = partial(self._say, result)
        # Nothing is held any more: a client that does not read may keep this waiting for long.
        for outdone, why in place.outdone:
            await self._told_of(outdone, why)
        if last is not None:
            await last()
        return setup

    def _tries_again(self, frame: Frame, setup: Setup, why: Failure, of_another: bool) -> bool:
        """Whether a frame that has no answer of the engine's may have another try.

        Args:
            frame: the frame.
            setup: by which it was to be answered.
            why: it has none.
            of_another: whether its place, and so the deadline, was an older frame's.
        """
        passed = why.reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED
        early = passed and of_another and time.monotonic() < frame.expires
        return early or self._calls.overtaken(setup.call, why)

    async def _told_of(self, frame: Frame, why: Failure | None) -> None:
        """Say that a frame has no answer: why, or None for one that a newer frame outdid."""
        if why is None:
            await self._supersede(frame)
        elif why.reason == errors_pb2.ERROR_REASON_DEADLINE_PASSED:
            await self._stale(frame)
        else:
            await self._fail(frame, why)

    def _renewed(self, setup: Setup) -> Setup:
        """The setup; for the model that serves now, if it was reloaded.

        Raises:
            Failure: it serves no more, or no more so that it could answer the stream.
        """
        if self._calls.catalogue.serves(setup.call.served):
            return setup
        # By name, also where the setup left it open: the default may be another model by now.
        _, at, version = setup.asked.options.model.partition("@")
        served = self._calls.catalogue.serving(f"{setup.call.served.entry.name}{at}{version}")
        fresh = Setup.of(setup.asked, replace(setup.call, served=served))
        if self._ring is not None and fresh.interval is not None:
            self._ring.interval = fresh.interval
        return fresh

    async def _supersede(self, frame: Frame) -> None:
        self._calls.metrics.superseded_frames.inc()
        await self._answer(frame, stream_pb2.FRAME_STATUS_SUPERSEDED)

    async def _stale(self, frame: Frame) -> None:
        self._calls.metrics.stale_frames.inc()
        await self._answer(frame, stream_pb2.FRAME_STATUS_STALE)

    async def _fail(self, frame: Frame, failure: Failure) -> None:
        self._calls.count_refusal(failure)
        await self._answer(frame, stream_pb2.FRAME_STATUS_FAILED, item_error(failure, "frame"))

    async def _answer(
        self,
        frame: Frame,
        status: stream_pb2.FrameStatus.ValueType,
        error: errors_pb2.ItemError | None = None,
    ) -> None:
        age = duration(frame.age)
        await self._say(
            stream_pb2.FrameResult(frame_id=frame.frame_id, status=status, error=error, age=age)
        )

    async def _say(self, result: stream_pb2.FrameResult) -> None:
        status = stream_pb2.FrameStatus.Name(result.status)
        self._record.frames[status.removeprefix("FRAME_STATUS_").lower()] += 1
        await self._outbox.put(_Response(result=result))

    async def _receive(self) -> Packed | None:
        """The next message; None at the client's end of the stream.

        Raises:
            Failure: DRAINING, for a client that says nothing is not waited for.
        """
        if self._calls.draining:
            raise shutting_down()
        reading = asyncio.ensure_future(self._context.read())
        draining = asyncio.create_task(self._calls.until_draining())
        try:
            await asyncio.wait({reading, draining}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise shutting_down()
            message = reading.result()
        finally:
            reading.cancel()
            draining.cancel()
        ended = message is grpc.aio.EOF
        if ended:
            await asyncio.sleep(_HANGING_UP)
        return None if ended else message

    async def _write(self) -> None:
        while (response := await self._outbox.get()) is not None:
            if response.HasField("clock"):
                response.clock.sent_time.GetCurrentTime()
            await self._context.write(response)
