"""A live stream for asyncio: frames in at any time, answers out as an async iterator.

`conversation.py` decides what is said; here are the waiting and the cancelling.
"""

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import grpc

from tectum.conversation import StreamReady
from tectum.errors import ClientClosed, TectumError
from tectum.failures import from_rpc
from tectum.inputs import Frame
from tectum.opening import Opening
from tectum.results import FrameResult
from tectum.v1 import stream_pb2

_Request = stream_pb2.StreamPerceptionRequest


class AsyncStream:
    """A live camera's stream: an async iterator over what became of its frames.

    Use it in an `async with` block, which waits for the worker to accept the stream and ends it
    on the way out. `send` never waits: at most `depth` frames wait to be sent, and one more takes
    the place of the oldest. To send from another thread, go through
    `loop.call_soon_threadsafe`. Waiting for a result may be cancelled
    (`asyncio.wait_for(anext(stream), …)`) without harm to the stream.
    """

    def __init__(
        self,
        rpcs: "grpc.aio.StreamStreamMultiCallable[Any, Any]",
        opening: Opening,
        frames: Iterable[Frame] | AsyncIterable[Frame] | None,
    ) -> None:
        self._rpcs = rpcs
        self._opening = opening
        self._conversation = opening.conversation
        self._changed = asyncio.Event()
        self._patience = opening.patience
        self._closed = False
        self._reading: asyncio.Future[Any] | None = None
        self._reopens_at: float | None = None
        """When, on the loop's clock; None: the stream is not lost."""
        self._rpc = self._begun()
        self._frames = frames
        self._feeding: asyncio.Task[None] | None = None

    @property
    def ready(self) -> StreamReady | None:
        """The worker's acceptance. None: it has not been read yet."""
        return self._conversation.ready

    @property
    def dropped(self) -> int:
        """Frames replaced by newer ones before they left; they get no answer."""
        return self._conversation.slot.dropped

    @property
    def lost(self) -> int:
        """Frames that were under way whenever the stream was lost; they get no answer."""
        return self._conversation.lost

    @property
    def clock_offset(self) -> float | None:
        """Seconds that the worker's clock is ahead of this one, as far as it was found out."""
        best = self._conversation.clock.best
        return None if best is None else best.offset

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
        self._end()
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
            if self._conversation.ready is None:
                await self._hear()
        except StopAsyncIteration:
            raise ClientClosed("the stream was closed before it was accepted") from None
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
        result = None
        while result is None:
            result = await self._hear()
        return result

    async def _hear(self) -> FrameResult | None:
        """The worker's next message; StopAsyncIteration when the stream has ended well."""
        conversation = self._conversation
        await self._reopen()
        try:
            response = await self._read()
        except TectumError as error:
            if self._reopens(error):
                return None
            self._end()
            raise
        if response is grpc.aio.EOF:
            self._end()
            if conversation.ready is None:
                raise conversation.never_accepted()
            raise StopAsyncIteration
        try:
            result = conversation.hear(response)
        except ValueError as error:
            await self.close()
            raise conversation.unreadable(error) from error
        if result is None:
            self._begin_sending()
        return result

    def _begin_sending(self) -> None:
        """The worker has accepted the stream: let frames leave."""
        self._changed.set()
        if self._frames is not None:
            self._feeding = asyncio.create_task(self._feed(self._frames))
            self._frames = None

    async def _read(self) -> Any:
        """The next message, or EOF; being cancelled here leaves the rpc alone."""
        conversation = self._conversation
        if self._closed:
            raise StopAsyncIteration
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._rpc.read())
        reading = self._reading
        patience = None if conversation.ready else self._patience
        await asyncio.wait({reading}, timeout=patience)
        if not reading.done():
            late = conversation.too_late(self._patience)
            if conversation.reopens:
                self._rpc.cancel()
                self._reading = None
                reading.add_done_callback(_error_of)
            else:
                await self.close()
            raise late
        self._reading = None
        if reading.cancelled():
            # The rpc was cancelled by this side: by an error in the frames, or by `close`.
            raise conversation.failure or StopAsyncIteration
        try:
            return reading.result()
        except grpc.RpcError as error:
            if _lost_status(error):
                raise conversation.broken_off() from None
            raise from_rpc(error, conversation.request_id) from None

    def _reopens(self, error: TectumError) -> bool:
        """Whether the stream, which was lost, is to be opened anew."""
        dice = random.random()  # noqa: S311 - spreads load, guards nothing
        pause = self._conversation.pause_before_reopening(error, dice)
        if pause is not None:
            self._reopens_at = asyncio.get_running_loop().time() + pause
        return pause is not None

    async def _reopen(self) -> None:
        """Open a lost stream anew when it is time; waiting for that may be given up and resumed."""
        if self._reopens_at is None:
            return
        await asyncio.sleep(max(0.0, self._reopens_at - asyncio.get_running_loop().time()))
        if self._conversation.slot.closed:  # in the meantime
            raise self._conversation.failure or StopAsyncIteration
        self._reopens_at, self._rpc = None, self._begun()

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
        """What goes on beside the caller: frames being said, a message being read."""
        both = (self._feeding, self._reading)
        return [one for one in both if one is not None and one is not asyncio.current_task()]

    def _break_off(self, error: Exception) -> None:
        """End the stream over an error of this side, which is raised where results are read."""
        self._conversation.failure = error
        self._end()
        self._rpc.cancel()

    def _end(self) -> None:
        self._conversation.close()
        self._changed.set()


def _error_of(ended: asyncio.Future[Any]) -> BaseException | None:
    """What it failed with, if it did; once asked for, asyncio does not complain about it."""
    return None if ended.cancelled() else ended.exception()


def _lost_status(error: grpc.RpcError) -> bool:
    """Whether grpc.aio made this status up because a write failed, in place of the worker's own."""
    return isinstance(error, grpc.aio.AioRpcError) and (
        error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"
    )
