"""The engine's end of the link: accepts fronts and puts their jobs before a LocalEngine."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

import msgspec

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Content, Engine, Item, ItemFailure, Job, JobResult, Priority
from tectum_server.worker.link.arena import Arena
from tectum_server.worker.link.arrays import pack, unpack
from tectum_server.worker.link.beating import beat
from tectum_server.worker.link.channel import Channel, MessageTooLong
from tectum_server.worker.link.messages import (
    Answer,
    AnswerItem,
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
from tectum_server.worker.link.renewing import Requested
from tectum_server.worker.link.segment import Segment

__all__ = ["serve_engine"]

_log = logging.getLogger(__name__)
_Last = Answer | Refusal | Loaded
"""How a request ends."""
_Work = Callable[[], Coroutine[None, None, _Last]]


async def serve_engine(
    engine: Engine, path: Path, start_seconds: Callable[[], float | None] = lambda: None
) -> None:
    """Accept fronts on a Unix socket until cancelled.

    Args:
        engine: what they ask.
        path: the socket's.
        start_seconds: what the engine's start took, as in `messages.Catalogue`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - an engine that was killed has left it
    listener.bind(str(path))
    path.chmod(0o600)  # noqa: ASYNC240 - once, before anybody is served
    listener.listen()
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    fronts: set[asyncio.Task[None]] = set()
    try:
        while True:
            sock, _ = await loop.sock_accept(listener)
            front = loop.create_task(_serve_front(engine, sock, start_seconds))
            fronts.add(front)
            front.add_done_callback(fronts.discard)
    finally:
        listener.close()
        for front in fronts:
            front.cancel()
        await asyncio.gather(*fronts, return_exceptions=True)


async def _serve_front(
    engine: Engine, sock: socket.socket, start_seconds: Callable[[], float | None]
) -> None:
    """One front, from its handshake to its end."""
    try:
        await _readable(sock)
        _, descriptors, _, _ = socket.recv_fds(sock, 1, 2)
    except OSError:  # it has gone already
        descriptors = []
    except asyncio.CancelledError:
        sock.close()
        raise
    if len(descriptors) != 2:
        for descriptor in descriptors:
            os.close(descriptor)
        sock.close()
        return
    requests, responses = (Segment.adopt(descriptor) for descriptor in descriptors)
    channel: Channel[FromFront, FromEngine] = await Channel.over(
        sock, msgspec.msgpack.Decoder(FromFront)
    )
    front = _Front(engine, channel, requests, responses, start_seconds)
    try:
        await front.converse()
    except ConnectionError:
        _log.info("a front has gone")
    except Exception:
        _log.exception("a front is cut off: what it said makes no sense")
    finally:
        front.close()
        requests.close()
        responses.close()


async def _readable(sock: socket.socket) -> None:
    """Return once the handshake, which carries the descriptors, has arrived."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    sock.setblocking(False)
    loop.add_reader(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock)


class _Front:
    """A connected front: its jobs under way, and the space its answers take."""

    def __init__(
        self,
        engine: Engine,
        channel: Channel[FromFront, FromEngine],
        requests: Segment,
        responses: Segment,
        start_seconds: Callable[[], float | None],
    ) -> None:
        self._engine = engine
        self._channel = channel
        self._requests = requests
        self._responses = responses
        self._start_seconds = start_seconds
        self._arena = Arena(responses.size)
        self._room = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._renewals: dict[int, Requested] = {}
        self._closed = False
        engine.on_change(self._announce)

    async def converse(self) -> None:
        """Hear the front until it goes."""
        self._announce()
        beating = asyncio.get_running_loop().create_task(beat(self._beat))
        try:
            await self._channel.hear(self._hear)
        finally:
            beating.cancel()

    def close(self) -> None:
        """Withdraw what this front still waits for."""
        self._closed = True
        self._engine.off_change(self._announce)
        for task in self._tasks.values():
            task.cancel()
        self._channel.close()

    def _announce(self) -> None:
        if self._closed:
            return
        try:
            entries = tuple(self._engine.models.values())
            self._channel.send(Catalogue(entries, self._start_seconds()))
        except MessageTooLong as error:
            _log.error("a front cannot be told what serves", extra={"reason": str(error)})

    def _beat(self) -> None:
        if not self._channel.backs_up:  # one that reads nothing need not know
            self._channel.send(Beat(*self._engine.outlooks()))

    def _hear(self, message: FromFront) -> None:
        match message:
            case Submit():
                work = partial(self._compute, message)
                self._begin(message.request, work, message.request_id)
            case Newer():
                self._renew(message)
            case Load() | Unload():
                self._begin(message.request, partial(self._administer, message))
            case Cancel():
                task = self._tasks.get(message.request)
                if task is not None:
                    # Not at once: a task cancelled before its first step would never answer.
                    asyncio.get_running_loop().call_soon(task.cancel)
            case Want():
                self._engine.want(message.name)
            case ExpectControl():
                self._engine.expect_control()
            case Released():
                self._release(message.offset)

    def _begin(self, request: int, work: _Work, request_id: str = "") -> None:
        task = asyncio.get_running_loop().create_task(self._answer(request, work, request_id))
        self._tasks[request] = task
        task.add_done_callback(lambda _: self._tasks.pop(request, None))

    async def _answer(self, request: int, work: _Work, request_id: str) -> None:
        """Do the work and say how it ended; every request gets exactly one message back."""
        message: _Last
        try:
            message = await work()
        except Failure as failure:
            message = _refusal(request, failure)
        except asyncio.CancelledError:
            gone = Failure(errors_pb2.ERROR_REASON_CANCELLED, "the caller went away")
            message = _refusal(request, gone)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:  # a panic of a library's, too: nobody would answer
            _log.exception("a request failed in the engine", extra={"request_id": request_id})
            fault = Failure(errors_pb2.ERROR_REASON_INTERNAL, "the engine failed; see its log")
            message = _refusal(request, fault)
        if not self._closed:
            self._send(message)

    def _send(self, message: _Last) -> None:
        """Say it; if it is too long, that instead."""
        try:
            self._channel.send(message)
        except MessageTooLong as error:
            if isinstance(message, Answer) and message.span is not None:
                self._release(message.span)
            words = f"the answer has {error}, beside its arrays; ask for fewer items"
            failure = Failure(errors_pb2.ERROR_REASON_TOO_MANY_ITEMS, words)
            self._channel.send(_refusal(message.request, failure))

    def _release(self, offset: int) -> None:
        self._arena.release(offset)
        self._room.set()

    def _renew(self, message: Newer) -> None:
        """Hand newer items to the job that was said to be due, if it is there still."""
        renewal = self._renewals.get(message.request)
        if renewal is None and message.items:
            self._say(Settled(message.request, taken=False))
        elif renewal is not None:
            items = self._items(message.items)
            renewal.hear(Content(items, message.deadline) if items else None)

    def _say(self, message: Due | Settled) -> None:
        if not self._closed:
            self._channel.send(message)

    def _items(self, sent: tuple[SubmitItem, ...]) -> tuple[Item, ...]:
        return tuple(
            Item(
                tuple(unpack(ref, self._requests) for ref in item.arrays),
                item.text,
                item.operation,
            )
            for item in sent
        )

    async def _compute(self, message: Submit) -> Answer:
        priority = Priority(message.priority)
        job = Job(
            model=message.model,
            operation=message.operation,
            items=self._items(message.items),
            priority=priority,
            deadline=message.deadline,
            arrived=message.arrived,
            version=message.version,
            request_id=message.request_id,
            sequel=message.sequel,
            turn=message.turn,
        )
        if not message.renewable:
            return await self._packed(message.request, await self._engine.submit(job))
        request = message.request
        renewal = self._renewals[request] = Requested(
            due=lambda patient: self._say(Due(request, patient)),
            settle=lambda taken: self._say(Settled(request, taken)),
        )
        try:
            result = await self._engine.submit(job, renewal)
        finally:
            del self._renewals[request]
        return await self._packed(request, result)

    async def _administer(self, message: Load | Unload) -> Loaded:
        if isinstance(message, Unload):
            await self._engine.unload_model(message.name)
            return Loaded(message.request, None)
        entry = await self._engine.load_model(message.name, message.version, message.make_default)
        return Loaded(message.request, entry)

    async def _packed(self, request: int, result: JobResult) -> Answer:
        """The result with its arrays in the response segment, once there is room."""
        outputs = result.outputs
        arrays = [
            array
            for output in outputs
            if not isinstance(output, ItemFailure)
            for array in output.arrays
        ]
        if sum(array.nbytes for array in arrays) > self._responses.size // 2:
            raise Failure(
                errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
                "the answer is larger than the worker's memory for answers; ask for fewer items",
            )
        while (packed := pack(arrays, self._arena, self._responses)) is None:
            self._room.clear()
            await self._room.wait()
        span, refs = packed
        rest = iter(refs)
        items: list[AnswerItem | ItemFailure] = []
        for output in outputs:
            if isinstance(output, ItemFailure):
                items.append(output)
            else:
                own = tuple(next(rest) for _ in output.arrays)
                items.append(AnswerItem(own, output.tokens, output.text))
        return Answer(
            request=request,
            version=result.version,
            items=tuple(items),
            queue_seconds=result.queue_seconds,
            compute_seconds=result.compute_seconds,
            batch_size=result.batch_size,
            span=span.offset,
        )


def _refusal(request: int, failure: Failure) -> Refusal:
    return Refusal(request, failure.reason, failure.message, failure.field, failure.retry_after)
