"""What a stream's client sends, read off the wire: a setup, then frames, and a question at times.

Of the frames only the newest wait; one that they leave no room for is answered SUPERSEDED.
"""

from __future__ import annotations

import asyncio

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call, Context, shutting_down
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.messages.unpacking import Packed
from tectum_server.worker.front.messages.wire import out_of_range
from tectum_server.worker.front.sharing import SharedPicture, SharedPlaces, Sharing
from tectum_server.worker.front.stream.frames import Arrivals, Frame, Ring
from tectum_server.worker.front.stream.newest import Newest
from tectum_server.worker.front.stream.outgoing import Outgoing

__all__ = ["Incoming"]

_SETUP_SECONDS = 5.0
"""So long a stream may hold its place before it has said what it wants."""
_PROBE_BYTES = 64
"""Of a message that asks for the clock: nothing of it is counted against the worker's memory."""
_HANGING_UP = 0.02
"""Seconds from the end of what a client says to its cancellation, if it has hung up: grpc tells the
one and then the other, and a call that is over by then would count as one that went well."""
_NAMED_SECONDS = 5.0
"""So long shared memory waits for its client to open it; then it is taken back."""
_Response = stream_pb2.StreamPerceptionResponse


class Incoming:
    """One stream's.

    Args:
        calls: the corridor all calls share.
        images: reads frames.
        sharing: shared memory for them, if there is some.
        context: the stream's own.
        newest: where the newest frames wait.
        outgoing: where what needs no engine is answered.
    """

    def __init__(
        self,
        calls: Calls,
        images: ImageReader,
        sharing: Sharing,
        context: Context,
        newest: Newest,
        outgoing: Outgoing,
    ) -> None:
        self._calls = calls
        self._images = images
        self._sharing = sharing
        self._context = context
        self._newest = newest
        self._outgoing = outgoing
        self._has_shared = False
        self._places: SharedPlaces | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self.set_up_at = Timestamp()
        """When the setup had come."""

    async def setup(self) -> stream_pb2.StreamSetup | None:
        """What the stream is asked for; None: its client has gone without a word.

        Raises:
            Failure: it begins with something else, or nothing comes.
        """
        try:
            async with asyncio.timeout(_SETUP_SECONDS):
                packed = await self._receive()
        except TimeoutError:
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING,
                f"a stream begins with its setup; none came within {_SETUP_SECONDS:g} s",
                "setup",
            ) from None
        self.set_up_at.GetCurrentTime()
        if packed is None:
            return None
        first, _ = self._calls.unpack(packed, "setup")
        if first.WhichOneof("message") != "setup":
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING, "a stream begins with its setup", "setup"
            )
        asked: stream_pb2.StreamSetup = first.setup
        return asked

    async def read(self, lifespan: float, call: Call, ring: Ring | None) -> None:
        """Let the newest frames wait, again and again, until the client sends no more.

        Args:
            lifespan: seconds for frames that name none.
            call: the stream's, of whose class its frames are.
            ring: where frames are kept that later ones may be paired with; None: nowhere.

        Raises:
            Failure: what comes is none of what may come.
        """
        arrivals = Arrivals(lifespan)
        try:
            while await self._read_one(arrivals, call, ring):
                pass
        finally:
            self._newest.end()

    def close(self) -> None:
        """Let go of the shared memory; no frame is read any more."""
        places, self._places = self._places, None
        if self._waiting is not None:
            self._waiting.cancel()
        if places is not None:
            self._sharing.take_back(places)

    async def _read_one(self, arrivals: Arrivals, call: Call, ring: Ring | None) -> bool:
        """Whether there was one; nothing of it is held while the next is waited for."""
        packed = await self._receive()
        if packed is None:
            return False
        request, size = self._calls.unpack(packed, "frame")
        match request.WhichOneof("message"):
            case "probe":
                await self._tell_clock(request.probe, size)
                return True
            case "share":
                await self._share(request.share)
                return True
            case "opened":
                if self._places is not None:
                    self._places.is_used()
                return True
            case "frame":
                pass
            case _:
                raise out_of_range("message", "after the setup come frames, probes and one share")
        spare = ring.shrink if ring is not None else None
        memory = self._calls.memory.share(call.priority, spare)
        frame = arrivals.read(request.frame, size, memory, self._places)
        del packed, request  # the frame alone knows when it is gone
        if ring is not None and frame.wrong is None:
            try:
                await self._copy(frame, call)
            except BaseException:
                frame.drop()
                raise
        if frame.wrong is not None:
            frame.drop()
            await self._outgoing.failed(frame, frame.wrong)
            return True
        replaced = self._newest.put(frame)
        if ring is not None:
            ring.add(frame, self._newest.oldest)
        if replaced is not None:
            replaced.drop()
            await self._outgoing.without(replaced, None)
        return True

    async def _tell_clock(self, probe: stream_pb2.ClockProbe, size: int) -> None:
        if size > _PROBE_BYTES:
            raise out_of_range("probe", f"at most {_PROBE_BYTES} bytes, found {size}")
        reply = stream_pb2.ClockReply()
        reply.client_time.seconds = probe.client_time.seconds
        reply.client_time.nanos = probe.client_time.nanos
        reply.received_time.GetCurrentTime()
        await self._outgoing.put(_Response(clock=reply))

    async def _share(self, asked: stream_pb2.SharedMemoryRequest) -> None:
        """Give shared memory for frames, if there is some left.

        Raises:
            Failure: it is asked for once more, or for places of no size.
        """
        if self._has_shared:
            raise out_of_range("share", "a stream asks for it once")
        if not asked.place_bytes:
            raise out_of_range("share.place_bytes", "at least 1, found 0")
        self._has_shared = True
        places = self._places = await self._sharing.open(asked.place_bytes, self._newest.depth)
        if places is not None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(_NAMED_SECONDS, self._close_unless_used)
        told = stream_pb2.SharedMemory() if places is None else places.told()
        await self._outgoing.put(_Response(shared_memory=told))

    def _close_unless_used(self) -> None:
        """Take back what its client has not opened, and nobody can any more."""
        if self._places is not None and not self._places.used:
            self.close()

    async def _copy(self, frame: Frame, call: Call) -> None:
        """Read what lies in shared memory of a frame that later ones may be paired with.

        Its place is the client's again once it is answered, also by a newer one.
        """
        if not isinstance(frame.content, SharedPicture):
            return
        try:
            reading = call.for_frame(frame.expires, frame.memory)
            frame.content = await self._images.copied(frame.content, reading, "frame.shared")
        except Failure as failure:
            frame.wrong = failure.with_traceback(None)  # which would hold the frame

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
