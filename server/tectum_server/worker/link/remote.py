"""The front's end of the link: an Engine that lives in another process.

Connects, hands over its two segments, and keeps connecting while the engine is away:
callers meanwhile get ENGINE_UNAVAILABLE, and what was in flight when it died fails so too.
An engine that is connected and not heard of is away as well; what is in flight waits for what comes
first, its end or its answer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    Content,
    Item,
    ItemFailure,
    ItemOutput,
    Job,
    JobResult,
    ModelEntry,
    Priority,
    Renewal,
)
from tectum_server.worker.link.absence import Absence
from tectum_server.worker.link.arrays import packed_bytes, unpack
from tectum_server.worker.link.beating import BEAT_SECONDS
from tectum_server.worker.link.channel import Channel, MessageTooLong
from tectum_server.worker.link.connection import Connection
from tectum_server.worker.link.messages import (
    Answer,
    Beat,
    Cancel,
    Catalogue,
    Due,
    ExpectControl,
    FromEngine,
    FromFront,
    Load,
    Loaded,
    Newer,
    Refusal,
    Released,
    Settled,
    Submit,
    SubmitItem,
    Unload,
    Want,
)
from tectum_server.worker.link.renewing import Offering
from tectum_server.worker.link.segment import Segment
from tectum_server.worker.outlook import Outlook
from tectum_server.worker.shares import has_room

__all__ = ["RemoteEngine"]

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.1
_AT_ONCE = 2**20
"""Bytes that the event loop itself copies to where the engine reads them, in a fraction of a
millisecond; what is larger a thread copies, one job's after another's."""


class RemoteEngine:
    """jobs.Engine over a Unix socket.

    Args:
        path: the engine's socket.
        request_bytes: size of the segment for what goes to the engine.
        response_bytes: size of the segment for what comes back.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        request_bytes: int,
        response_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._request_bytes = request_bytes
        self._response_bytes = response_bytes
        self._link: Connection | None = None
        self._numbers = itertools.count()
        self._models: dict[str, ModelEntry] = {}
        self._clock = clock
        self._absence = Absence()
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._copying = ThreadPoolExecutor(1, thread_name_prefix="copy")

    @property
    def models(self) -> Mapping[str, ModelEntry]:
        """The models by name, in whatever state; empty while the engine is away."""
        return self._models

    @property
    def back_in(self) -> float:
        """As jobs.Engine.back_in: by what its last start took."""
        return self._absence.left(self._clock())

    def outlooks(self) -> tuple[Outlook | None]:
        """As jobs.Engine.outlooks: an engine that has nothing of ours may be free by now."""
        link = self._link
        return (link.outlook if link is not None and link.waiting else None,)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `models` has changed."""
        self._listeners.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def start(self) -> None:
        """Begin to connect, and keep at it."""
        self._absence.begin(self._clock())
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    async def close(self) -> None:
        """Hang up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._copying.shutdown(wait=False)

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        """As jobs.Engine.submit."""
        link = self._connected()
        number = next(self._numbers)
        items, wanted = None, packed_bytes([array for item in job.items for array in item.arrays])
        if has_room(link.arena.capacity, link.arena.used, wanted, job.priority):
            if wanted <= _AT_ONCE:
                items = link.pack(number, job.items)
            else:
                items = await self._pack_beside(link, number, job.items)
        if items is None:
            raise _no_room(wanted, link.arena.capacity, len(job.items))
        message = Submit(
            request=number,
            model=job.model,
            operation=job.operation,
            priority=job.priority,
            deadline=job.deadline,
            items=items,
            arrived=job.arrived,
            version=job.version,
            request_id=job.request_id,
            sequel=job.sequel,
            turn=job.turn,
            renewable=renewal is not None,
        )
        if renewal is not None:
            link.offering[number] = Offering(renewal, partial(self._offer, link, number))
        try:
            result = await self._ask(link, number, message)
        except asyncio.CancelledError:
            link.channel.send(Cancel(number))
            raise
        finally:
            if renewal is not None:
                await link.offering.pop(number).close()
        if not isinstance(result, JobResult):
            raise TypeError(f"the engine answered a job with {type(result).__name__}")
        return result

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        """As jobs.Engine.load_model."""
        link, number = self._connected(), next(self._numbers)
        loaded = await self._ask(link, number, Load(number, name, version, make_default))
        if not isinstance(loaded, Loaded) or loaded.entry is None:
            raise TypeError("the engine answered a load with something else")
        return loaded.entry

    async def unload_model(self, name: str) -> None:
        """As jobs.Engine.unload_model."""
        link, number = self._connected(), next(self._numbers)
        await self._ask(link, number, Unload(number, name))

    def want(self, name: str) -> None:
        """As jobs.Engine.want."""
        if self._link is not None and not self._link.pulse.lost:
            self._link.channel.send(Want(name))

    def expect_control(self) -> None:
        """As jobs.Engine.expect_control."""
        if self._link is not None and not self._link.pulse.lost:
            self._link.channel.send(ExpectControl())

    def _offer(self, link: Connection, number: int, content: Content | None) -> bool:
        """Send newer content for a job, if there is room for it; None: that there is none.

        What is left for BULK is enough for what can be done without.
        """
        if number not in link.waiting or link is not self._link:
            return False  # it is answered: space that it took now would never come back
        if content is None:
            link.channel.send(Newer(number, (), 0.0))
            return True
        wanted = packed_bytes([array for item in content.items for array in item.arrays])
        if not has_room(link.arena.capacity, link.arena.used, wanted, Priority.BULK):
            return False
        packed = link.pack(number, content.items)
        if packed is None:
            return False
        link.channel.send(Newer(number, packed, content.deadline))
        return True

    async def _pack_beside(
        self, link: Connection, number: int, items: Sequence[Item]
    ) -> tuple[SubmitItem, ...] | None:
        """As Connection.pack, for what is large; the engine may go meanwhile."""
        try:
            packed = await link.pack_beside(number, items, self._copying)
        except ValueError:  # there is nowhere to copy to any more
            if link is self._link:
                raise
        if link is not self._link:
            raise self._away()
        return packed

    def _connected(self) -> Connection:
        if self._link is None or self._link.pulse.lost:
            raise self._away()
        return self._link

    async def _ask(self, link: Connection, number: int, message: FromFront) -> JobResult | Loaded:
        """What the engine answers.

        Raises:
            Failure: the engine's, or MESSAGE_TOO_LARGE.
        """
        try:
            link.channel.send(message)
        except MessageTooLong as error:
            link.release(number)
            raise Failure(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE, f"beside its pixels it has {error}"
            ) from error
        future: asyncio.Future[JobResult | Loaded] = asyncio.get_running_loop().create_future()
        link.waiting[number] = future
        return await future

    async def _stay_connected(self) -> None:
        while True:
            try:
                await self._converse()
            except (ConnectionError, FileNotFoundError) as error:
                _log.debug("no engine", extra={"error": str(error)})
            except Exception:
                _log.exception("the link to the engine broke")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _converse(self) -> None:
        """One connection, from the handshake to its end."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        requests = Segment.create(self._request_bytes)
        responses = Segment.create(self._response_bytes)
        close = sock.close
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(self._path))
            socket.send_fds(sock, [b"S"], [requests.descriptor, responses.descriptor])
            channel: Channel[FromEngine, FromFront] = await Channel.over(
                sock, msgspec.msgpack.Decoder(FromEngine)
            )
            close = channel.close  # which owns the socket now
            self._link = link = Connection(channel, requests, responses)
            watching = asyncio.get_running_loop().create_task(self._watch(link))
            try:
                await channel.hear(partial(self._hear, link))
            finally:
                watching.cancel()
        finally:
            self._lose()
            close()
            requests.close()
            responses.close()

    async def _watch(self, link: Connection) -> None:
        """Notice that the engine is not heard of any more."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            link.pulse.turn()
            if link.pulse.lost and self._models:
                _log.error("the engine is silent", extra={"in_flight": len(link.waiting)})
                self._announce({})

    def _hear(self, link: Connection, message: FromEngine) -> None:
        if isinstance(message, Catalogue):
            link.models = {entry.name: entry for entry in message.models}
            link.start_seconds = message.start_seconds
        if link.pulse.heard() or isinstance(message, Catalogue):
            self._announce(link.models, link.start_seconds)
        if isinstance(message, Beat):
            link.outlook = message.outlook
        if isinstance(message, Beat | Catalogue):
            return
        if isinstance(message, Due):
            if message.request in link.offering:
                link.offering[message.request].begin(patient=message.patient)
            return
        if isinstance(message, Settled):
            link.settle(message.request, message.taken)
            return
        link.release(message.request)
        future = link.waiting.get(message.request)
        if future is not None and not future.done():  # else the caller has gone
            match message:
                case Refusal():
                    future.set_exception(self._failure(message))
                case Answer():
                    future.set_result(_result(message, link.responses))
                case Loaded():
                    future.set_result(message)
        link.waiting.pop(message.request, None)
        # Here and nowhere else: whether the caller will still take the result, nobody knows. But a
        # turn of the loop later: whoever waits goes first.
        if isinstance(message, Answer) and message.span is not None:
            released = Released(message.span)
            asyncio.get_running_loop().call_soon(link.channel.send, released)

    def _lose(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            for future in link.waiting.values():
                if not future.done():
                    future.set_exception(self._away())
        if self._models:
            self._announce({})

    def _announce(self, models: dict[str, ModelEntry], start: float | None = None) -> None:
        if models:
            self._absence.end(start)
        else:
            self._absence.begin(self._clock())
        self._models = models
        for listener in list(self._listeners):
            listener()

    def _away(self) -> Failure:
        return Failure(
            errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE,
            "the engine is starting, being restarted, or not to be heard of",
            retry_after=self.back_in,
        )

    def _failure(self, refusal: Refusal) -> Failure:
        """What the engine says; when another one serves, it cannot know."""
        reason, after = errors_pb2.ErrorReason.ValueType(refusal.reason), refusal.retry_after
        if reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE and after is None:
            after = self.back_in
        return Failure(reason, refusal.message, refusal.field, after)


def _result(answer: Answer, responses: Segment) -> JobResult:
    """The answer in memory of this process's own."""
    outputs: list[ItemOutput | ItemFailure] = []
    for item in answer.items:
        if isinstance(item, ItemFailure):
            outputs.append(item)
        else:
            arrays = tuple(np.array(unpack(ref, responses)) for ref in item.arrays)
            outputs.append(ItemOutput(arrays, item.tokens, item.text))
    return JobResult(
        version=answer.version,
        outputs=tuple(outputs),
        queue_seconds=answer.queue_seconds,
        compute_seconds=answer.compute_seconds,
        batch_size=answer.batch_size,
    )


def _no_room(wanted: int, capacity: int, items: int) -> Failure:
    """Why a request's arrays are not taken: for now, or for good."""
    if wanted <= capacity:
        return Failure(errors_pb2.ERROR_REASON_QUEUE_FULL, "the memory for requests is full")
    words = f"{wanted} bytes of pixels, at most {capacity} are allowed in one request"
    if items > 1:
        return Failure(errors_pb2.ERROR_REASON_TOO_MANY_ITEMS, words)
    return Failure(errors_pb2.ERROR_REASON_IMAGE_TOO_LARGE, words)
