"""`tectum.AsyncClient`: the SDK for asyncio.

A thin shell. What can be asked is `surface.py`, by when and how often is `calls.py`; here a call
meets a channel of grpc.aio's. `client.py` is its twin, with the same methods.
"""

import asyncio
import random
import time
import weakref
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, Unpack

import grpc
from google.protobuf.message import Message

from tectum import calls, conversation, surface
from tectum.aio_stream import AsyncStream
from tectum.calls import Answer, Call, Plan
from tectum.errors import Cancelled, ClientClosed, TectumError
from tectum.failures import from_rpc
from tectum.inputs import Frame
from tectum.opening import StreamOptions
from tectum.shell import POLL_INTERVAL, Shell, dress, never_ready, still_starting
from tectum.vocabulary import Health

Arguments = ParamSpec("Arguments")


def awaitable(
    ask: Callable[Arguments, Call[Answer]],
) -> "Callable[Concatenate[AsyncClient, Arguments], Coroutine[Any, Any, Answer]]":
    """The coroutine method that makes a call and returns its answer."""

    async def method(
        self: "AsyncClient", /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        return await self._run(ask(*args, **kwargs))

    return dress(method, ask)


class AsyncClient(Shell):
    """A worker, seen from an asyncio program; belongs to the loop that first uses it.

    Every method raises `TectumError`s only, and asyncio.CancelledError when its task is
    cancelled, which cancels the call on the worker too. Results are frozen; see `tectum.surface`
    for each method's own documentation. Pictures given as paths are read at once, on the loop.
    """

    embed_images = awaitable(surface.embed_images)
    embed_texts = awaitable(surface.embed_texts)
    embed_clips = awaitable(surface.embed_clips)
    similarity = awaitable(surface.similarity)
    reconstruct_image = awaitable(surface.reconstruct_image)
    reconstruct_clip = awaitable(surface.reconstruct_clip)
    reconstruct_text = awaitable(surface.reconstruct_text)
    reconstruct_actions = awaitable(surface.reconstruct_actions)
    predict_latent_actions = awaitable(surface.predict_latent_actions)
    rollout = awaitable(surface.rollout)
    list_models = awaitable(surface.list_models)
    get_model = awaitable(surface.get_model)
    load_model = awaitable(surface.load_model)
    unload_model = awaitable(surface.unload_model)
    health = awaitable(surface.health)

    def stream(
        self,
        frames: Iterable[Frame] | AsyncIterable[Frame] | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncStream:
        """Open a live stream; answers are heard from when it is entered, or first read, on.

        Answers that are not taken at once give way to newer ones (`depth`, `unread`), so that who
        reads slowly hears of what the camera sees now; whoever must have every one takes them in
        a task of its own.

        Args:
            frames: Where frames come from, drained in a task at its own pace from when the worker
                has accepted the stream; a recording must be paced, or newer frames replace those
                that wait. None: `send` them.
            options: See `StreamOptions`.
        """
        opening = self._open_stream(options)
        rpcs = self._channel().stream_stream(
            conversation.PATH, _serialize, conversation.RESPONSE.FromString
        )
        stream = AsyncStream(rpcs, opening, frames)
        self._streams.add(stream)
        return stream

    async def wait_until_ready(self, timeout: float = 30.0, *, model: str = "") -> None:  # noqa: ASYNC109
        """Wait until the worker, or one of its models, serves.

        Args:
            timeout: Seconds to wait.
            model: Empty: the worker as a whole.

        Raises:
            Unavailable: it does not within that time.
        """
        ends = time.monotonic() + timeout
        last: object = "not asked"
        while (remaining := ends - time.monotonic()) > 0:
            try:
                last = await self.health(model, timeout=remaining, retries=0)
            except TectumError as error:
                if not still_starting(error):
                    raise
                last = error
            if last is Health.SERVING:
                return
            await asyncio.sleep(min(POLL_INTERVAL, max(ends - time.monotonic(), 0)))
        raise never_ready(self.address, timeout, last)

    async def close(self) -> None:
        """End every stream and call, and the connection."""
        self._closed = True
        for stream in list(self._streams):
            await stream.close()
        if self._opened is not None:
            await self._opened.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _begin(self) -> None:
        self._streams = weakref.WeakSet[AsyncStream]()
        self._opened: grpc.aio.Channel | None = None

    def _channel(self) -> grpc.aio.Channel:
        # Opened at first use: grpc.aio's channels belong to the loop they are made in.
        if self._opened is None:
            self._opened = (
                grpc.aio.insecure_channel(self.address, self._channel_options)
                if self._tls is None
                else grpc.aio.secure_channel(self.address, self._tls, self._channel_options)
            )
        return self._opened

    async def _run(self, call: Call[Answer]) -> Answer:
        """Make a call, and again where the worker says that helps and time is left."""
        plan = self._plan(call)
        ends = time.monotonic() + plan.budget
        for attempt in range(plan.retries + 1):
            try:
                return plan.read(await self._attempt(plan, ends - time.monotonic()))
            except TectumError as error:
                pause = calls.pause_before_retry(
                    error,
                    attempt=attempt,
                    retries=plan.retries,
                    remaining=ends - time.monotonic(),
                    dice=random.random(),  # noqa: S311 - spreads load, guards nothing
                )
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, plan: Plan[Any], remaining: float) -> Any:
        call = plan.call
        # No deadline is told where none was set, so that the worker's default applies; then only
        # the wait is bounded.
        told = None if plan.deadline is None else max(remaining, 0.0)
        try:
            rpc = self._channel().unary_unary(call.path, _serialize, call.response.FromString)
            async with asyncio.timeout(remaining if told is None else None):
                return await rpc(call.request, timeout=told, metadata=plan.metadata)
        except TimeoutError:
            raise plan.gave_up() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise Cancelled("the client was closed during the call") from None
            raise
        except grpc.RpcError as error:
            raise from_rpc(error, plan.request_id) from None
        except grpc.aio.UsageError as error:
            raise ClientClosed("the client was closed before the call") from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
