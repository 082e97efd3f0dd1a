"""A live stream for asyncio: frames in at any time, answers out as an async iterator.

`conversation.py` decides what is said; here are the waiting and the cancelling.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc

from tectum.conversation import LOOK
from tectum.errors import ClientClosed, TectumError
from tectum.failures import from_rpc
from tectum.inbox import Inbox
from tectum.inputs import Frame
from tectum.opening import Opening
from tectum.results import FrameResult
from tectum.standing import Standing
from tectum.v1 import stream_pb2

_Request = stream_pb2.StreamPerceptionRequest


class AsyncStream(Standing):
    """A live camera's stream: an async iterator over what became of its frames.

    Use it in an `async with` block, which waits for the worker to accept the stream and ends it
    on the way out. `send` never waits: at most `depth` frames wait to be sent, and one more takes
    the place of the oldest. To send from another thread, go through
    `loop.call_soon_threadsafe`. Waiting for a result may be cancelled
    (`asyncio.wait_for(anext(stream), …)`) without harm to the stream.

    Answers are read off the wire as they come, in a task of its own, and of those that are not
    taken at once the newest wait, `depth` OK ones: who reads more slowly than the camera hears of
    its newest frame, and how old that is by then. `unread` counts what gave way. Whoever must have
    every answer, as a recorder of latent actions, lets another task take them. What blocks the
    loop keeps that task from reading, too.
    """

    def __init__(
        self,
        rpcs: "grpc.aio.StreamStreamMultiCallable[Any, Any]",
        opening: Opening,
        frames: Iterable[Frame] | AsyncIterable[Frame] | None,
    ) -> None:
        super().__init__(opening.conversation, Inbox(opening.conversation.slot.depth))
        self._rpcs = rpcs
        self._opening = opening
        self._changed = asyncio.Event()
        self._patience = opening.patience
        self._heard = asyncio.Event()
        """Something was heard, or the stream is over."""
        self._ended = asyncio.Event()
        """Nothing is said any more."""
        self._closed = self._over = False
        self._error: Exception | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._rpc = self._begun()
        self._frames = frames
        self._feeding: asyncio.Task[None] | None = None

    def send(self, frame: Frame) -> int:
        """Let a frame wait to be sent, in place of the oldest if `depth` do; never waits.

        Returns:
            The id that its answer will carry.

        Raises:
            InvalidInput: not a frame the stream may carry now.
            TooLarge: it makes a larger message than the client sends; others may follow.
            ClientClosed: the stream has ended.
        """
        frame_id = self._conversation.say(frame)
        self._changed.set()
        return frame_id

    def finish(self) -> None:
        """Say that no more frames come; the answers to those sent still do."""
        self._conversation.slot.finished = True
        self._changed.set()

    async def close(self) -> None:
        """End the stream now."""
        self._closed = True
        self._inbox.clear()
        self._finish_hearing(None)
        self._rpc.cancel()
        ending = self._unfinished()
        for one in ending:
            one.cancel()
            # Looked at even where the wait below is cancelled: that is meant for whoever closes.
            one.add_done_callback(_error_of)
        if ending:
            await asyncio.wait(ending)
        for one in ending:
            error = _error_of(one)
            if error is not None and not isinstance(error, grpc.RpcError):
                raise error

    async def __aenter__(self) -> Self:
        try:
            await self._until_accepted()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[FrameResult]:
        return self

    async def __anext__(self) -> FrameResult:
        self._begin_hearing()
        await asyncio.sleep(0)  # who never waits for an answer lets newer ones be read all the same
        while (found := self._inbox.take(time.monotonic())) is None:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            await self._something_heard()
        return found

    async def _until_accepted(self) -> None:
        self._begin_hearing()
        while not (self._conversation.accepted or self._over):
            await self._something_heard()
        if not self._conversation.accepted:
            raise self._error or ClientClosed("the stream was closed before it was accepted")

    async def _something_heard(self) -> None:
        self._heard.clear()
        await self._heard.wait()

    def _begin_hearing(self) -> None:
        if self._hearing is None and not self._closed:
            self._hearing = asyncio.create_task(self._hear_all())

    async def _hear_all(self) -> None:
        error: Exception | None = None
        try:
            while await self._hear_one():
                pass
        except Exception as ended:
            error = ended
        finally:
            self._finish_hearing(error)

    def _finish_hearing(self, error: Exception | None) -> None:
        self._end()
        self._error, self._over = None if self._closed else error, True
        self._heard.set()

    async def _hear_one(self) -> bool:
        """Hear the worker's next message; False: the stream has ended well.

        Raises:
            Exception: what ended it, if that was this side.
            TectumError: the stream has failed.
        """
        conversation = self._conversation
        try:
            response = await self._read()
        except TectumError as error:
            return await self._reopened(error)
        if response is grpc.aio.EOF:
            if conversation.ready is None:
                raise conversation.never_accepted()
            return False
        try:
            answer = conversation.hear(response)
        except ValueError as error:
            self._rpc.cancel()
            raise conversation.unreadable(error) from error
        if answer is None:
            self._begin_sending()
        else:
            self._inbox.put(answer)
        self._heard.set()
        return True

    def _begin_sending(self) -> None:
        """The worker has accepted the stream: let frames leave."""
        self._changed.set()
        if self._frames is not None:
            self._feeding = asyncio.create_task(self._feed(self._frames))
            self._frames = None

    async def _read(self) -> Any:
        """The next message, or EOF.

        Raises:
            Exception: what ended the stream, if that was this side.
            TectumError: the stream has failed.
        """
        conversation = self._conversation
        reading = asyncio.ensure_future(self._rpc.read())
        try:
            await self._until_read(reading)
        finally:
            if not reading.done():
                reading.cancel()
                reading.add_done_callback(_error_of)
        if reading.cancelled():
            # The rpc was cancelled by this side: by an error in the frames, or by `close`.
            if conversation.failure is not None:
                raise conversation.failure
            return grpc.aio.EOF
        try:
            return reading.result()
        except grpc.RpcError as error:
            if _lost_status(error):
                raise conversation.broken_off() from None
            raise from_rpc(error, conversation.request_id) from None

    async def _until_read(self, reading: asyncio.Future[Any]) -> None:
        """Wait for a message, or the call's end.

        Raises:
            DeadlineExceeded: the worker has not accepted the stream in time.
            Unavailable: nothing is heard of it any more.
        """
        conversation = self._conversation
        if conversation.ready is None:
            await asyncio.wait({reading}, timeout=self._patience)
            if not reading.done():
                self._rpc.cancel()
                raise conversation.too_late(self._patience)
        while not reading.done():
            await asyncio.wait({reading}, timeout=LOOK)
            silent = conversation.silent(time.monotonic())
            if silent is not None and not reading.done():
                # After a loop that was blocked, what has come meanwhile is read first.
                await asyncio.wait({reading}, timeout=LOOK)
                if not reading.done():
                    self._rpc.cancel()
                    raise silent

    async def _reopened(self, error: TectumError) -> bool:
        """Open a stream that was lost anew, when it is time; False: it was closed by then.

        Raises:
            Exception: what ended it meanwhile, on this side.
            TectumError: the error, where that is not to be done.
        """
        conversation = self._conversation
        dice = random.random()  # noqa: S311 - spreads load, guards nothing
        pause = conversation.pause_before_reopening(error, dice)
        if pause is None:
            raise conversation.failure or error
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), pause)
        if self._ended.is_set():
            if conversation.failure is not None:
                raise conversation.failure
            return False
        self._rpc = self._begun()
        return True

    def _begun(self) -> Any:
        """A call that sends what is said here, as long as it lives."""
        ended = asyncio.Event()
        rpc = self._rpcs(self._messages(ended), metadata=self._opening.metadata)

        def end(_: object) -> None:
            ended.set()
            if self._conversation.reopens:
                self._changed.set()
            else:
                self._end()

        rpc.add_done_callback(end)
        return rpc

    async def _messages(self, ended: asyncio.Event) -> AsyncIterator[_Request]:
        """What is sent: the set-up, then frames until the call's end."""
        conversation, setup = self._conversation, self._opening.setup
        conversation.opening_with(setup)
        yield setup
        while not ended.is_set():
            self._changed.clear()
            message = conversation.to_send()
            if message is not None:
                try:
                    if not conversation.dressed(message):
                        await asyncio.to_thread(conversation.dress, message)
                except Exception as error:
                    self._break_off(error)
                    return
                yield message
            elif conversation.all_sent:
                return
            else:
                await self._changed.wait()

    async def _feed(self, frames: Iterable[Frame] | AsyncIterable[Frame]) -> None:
        """Say every frame of an iterable, then finish; an error in it breaks the stream off."""
        try:
            if isinstance(frames, AsyncIterable):
                async for frame in frames:
                    self.send(frame)
            else:
                for frame in frames:
                    self.send(frame)
                    await asyncio.sleep(0)
        except ClientClosed:
            return
        except Exception as error:
            self._break_off(error)
        else:
            self.finish()

    def _unfinished(self) -> list[asyncio.Future[Any]]:
        """What goes on beside the caller: frames being said, messages being heard."""
        both = (self._feeding, self._hearing)
        return [one for one in both if one is not None and one is not asyncio.current_task()]

    def _break_off(self, error: Exception) -> None:
        """End the stream over an error of this side, which is raised where results are read."""
        self._conversation.failure = error
        self._end()
        self._rpc.cancel()

    def _end(self) -> None:
        self._conversation.close()
        self._ended.set()
        self._changed.set()


def _error_of(ended: asyncio.Future[Any]) -> BaseException | None:
    """What it failed with, if it did; once asked for, asyncio does not complain about it."""
    return None if ended.cancelled() else ended.exception()


def _lost_status(error: grpc.RpcError) -> bool:
    """Whether grpc.aio made this status up because a write failed, in place of the worker's own."""
    return isinstance(error, grpc.aio.AioRpcError) and (
        error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"
    )
