"""StreamPerception: one live camera, one setup, and every frame gets exactly one answer.

Three tasks share a stream. One takes frames off the wire and keeps only the newest, one or as many
as the setup says (`incoming`). One has them computed in order, or what is newer by then
(`answering`): this one. One sends answers (`outgoing`). All that waits is bounded: a frame in the
engine's line, one offered in its place and those after them, a ring of recent ones where pairs are
asked for, and an outbox that stops who answers, then the reader, and through flow control the
client, when nobody reads.

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

from tectum.v1 import errors_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import (
    Context,
    Record,
    metadata_of,
    read_priority,
    request_id_of,
)
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.sharing import Sharing
from tectum_server.worker.front.stream.answering import Answering
from tectum_server.worker.front.stream.frames import Frame, Ring, read_lifespan
from tectum_server.worker.front.stream.incoming import Incoming
from tectum_server.worker.front.stream.newest import Newest
from tectum_server.worker.front.stream.outgoing import Outgoing
from tectum_server.worker.front.stream.stream_setup import Setup, read_depth
from tectum_server.worker.jobs import Priority

__all__ = ["PerceptionStream"]

_Response = stream_pb2.StreamPerceptionResponse


class PerceptionStream:
    """One stream.

    Args:
        calls: the corridor all calls share.
        images: reads frames.
        sharing: shared memory for them, if there is some.
        context: the stream's own.
    """

    def __init__(
        self, calls: Calls, images: ImageReader, sharing: Sharing, context: Context
    ) -> None:
        self._calls = calls
        self._images = images
        self._context = context
        self._shares_memory = sharing.offered
        request_id = request_id_of(metadata_of(context))
        self._record = Record("StreamPerception", request_id, priority=Priority.CONTROL)
        self._newest = Newest()
        self._turn = time.monotonic()
        """When it was last answered by the engine, or opened: its turn among all streams."""
        self._ring: Ring | None = None
        self._out = Outgoing(calls, context, self._record)
        self._in = Incoming(calls, images, sharing, context, self._newest, self._out)

    async def run(self) -> None:
        """Serve the stream to its end."""
        await self._calls.account(self._record, self._context, self._converse)

    async def _converse(self) -> None:
        with self._calls.one_more_stream():
            asked = await self._in.setup()
            if asked is not None:
                await self._serve(self._set_up(asked))

    def _set_up(self, asked: stream_pb2.StreamSetup) -> Setup:
        if not asked.embed and not asked.latent_actions:
            raise Failure(
                errors_pb2.ERROR_REASON_FIELD_MISSING,
                "embed, latent_actions or both must be asked for",
                "setup.embed",
            )
        self._newest.depth = read_depth(asked)
        self._record.priority = read_priority(asked.options, Priority.CONTROL)
        call = self._calls.open(asked.options, self._record, None)
        return Setup.of(asked, call)

    async def _serve(self, setup: Setup) -> None:
        lifespan = read_lifespan(setup.asked)
        await self._context.write(_Response(ready=self._ready(setup)))
        if setup.interval is not None:
            self._ring = Ring(setup.interval)
            self._calls.memory.on_shortage.add(self._ring.forget_the_useless)
        writer = asyncio.create_task(self._out.send())
        reader = asyncio.create_task(self._in.read(lifespan, setup.call, self._ring))
        over: Failure | None = None
        try:
            try:
                await self._work(setup)
            except Failure as failure:
                over = failure
            await self._out.end()
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

    def _ready(self, setup: Setup) -> stream_pb2.StreamReady:
        """That the stream is accepted, and how it will be answered."""
        ready = stream_pb2.StreamReady(info=setup.call.info(), received_time=self._in.set_up_at)
        ready.info.ClearField("timings")
        ready.worker_time.GetCurrentTime()
        ready.shares_memory = self._shares_memory
        if setup.asked.tell_input:
            ready.image_input.CopyFrom(setup.image_input)
        return ready

    def _forget_all(self) -> None:
        """Hold no frame any more."""
        self._newest.clear()
        if self._ring is not None:
            self._calls.memory.on_shortage.discard(self._ring.forget_the_useless)
            self._ring.clear()
        self._in.close()

    async def _work(self, setup: Setup) -> None:
        """The oldest frame that waits, again and again, until the client is done and none does.

        Raises:
            Failure: the model serves no more, or no more so that it could answer.
        """
        following: Setup | None = setup
        while following is not None:
            following = await self._work_one(following)

    async def _work_one(self, setup: Setup) -> Setup | None:
        """Answer the next frame; gives the setup for the one after, None if there is none.

        Nothing of a frame is held while the next is waited for.
        """
        frame = await self._newest.take()
        return None if frame is None else await self._work_on(frame, setup)

    async def _work_on(self, frame: Frame, setup: Setup) -> Setup:
        """Answer a frame, or a newer one in its place; gives the setup for the next one."""
        if time.monotonic() >= frame.expires:
            frame.drop()
            await self._out.stale(frame)
            return setup
        try:
            setup, before = self._renewed(setup), setup
        except Failure as failure:
            frame.drop()
            await self._out.failed(frame, failure)
            if failure.retry_delay is None:
                raise
            return setup
        place = Answering(
            self._calls, self._images, setup, self._ring, self._newest, frame, self._turn
        )
        last: Callable[[], Awaitable[None]] | None = None
        try:
            if setup.asked.tell_input and not setup.resizes_as(before.image_input):
                changed = stream_pb2.InputChanged(image_input=setup.image_input)
                await self._out.put(_Response(input_changed=changed))
            result = await place.result()
        except Failure as failure:
            again = self._calls.overtaken(setup.call, failure)
            if not (again and self._newest.put_back(place.frame)):
                place.frame.drop()
                last = partial(self._out.without, place.frame, None if again else failure)
        except BaseException:
            place.frame.drop()
            raise
        else:
            place.frame.drop()
            last = partial(self._out.answer, result, place.frame)
        finally:
            if place.had_its_turn:
                self._turn = time.monotonic()
        # Nothing is held any more: a client that does not read may keep this waiting for long.
        for outdone, why in place.outdone:
            await self._out.without(outdone, why)
        if last is not None:
            await last()
        return setup

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
