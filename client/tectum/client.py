"""`tectum.Client`: the SDK for threads.

A thin shell. What can be asked is `surface.py`, by when and how often is `calls.py`; here a call
meets a channel of grpc's. `aio.py` is its twin, with the same methods.
"""

import random
import time
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, Unpack

import grpc
from google.protobuf.message import Message

from tectum import calls, conversation, surface
from tectum.calls import Answer, Call, Plan
from tectum.errors import Cancelled, ClientClosed, TectumError
from tectum.failures import from_rpc
from tectum.inputs import Frame
from tectum.opening import StreamOptions
from tectum.shell import POLL_INTERVAL, Shell, dress, never_ready, still_starting
from tectum.starter import Starter
from tectum.stream import Stream
from tectum.vocabulary import Health

Arguments = ParamSpec("Arguments")


def blocking(
    ask: Callable[Arguments, Call[Answer]],
) -> "Callable[Concatenate[Client, Arguments], Answer]":
    """The method that makes a call and waits for its answer."""

    def method(self: "Client", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return self._run(ask(*args, **kwargs))

    return dress(method, ask)


class Client(Shell):
    """A worker, seen from a program with threads; safe to share between them.

    Every method raises `TectumError`s only. Results are frozen; see `tectum.surface` for each
    method's own documentation.
    """

    embed_images = blocking(surface.embed_images)
    embed_texts = blocking(surface.embed_texts)
    embed_clips = blocking(surface.embed_clips)
    similarity = blocking(surface.similarity)
    reconstruct_image = blocking(surface.reconstruct_image)
    reconstruct_clip = blocking(surface.reconstruct_clip)
    reconstruct_text = blocking(surface.reconstruct_text)
    reconstruct_actions = blocking(surface.reconstruct_actions)
    predict_latent_actions = blocking(surface.predict_latent_actions)
    rollout = blocking(surface.rollout)
    list_models = blocking(surface.list_models)
    get_model = blocking(surface.get_model)
    load_model = blocking(surface.load_model)
    unload_model = blocking(surface.unload_model)
    health = blocking(surface.health)

    def stream(
        self, frames: Iterable[Frame] | None = None, **options: Unpack[StreamOptions]
    ) -> Stream:
        """Open a live stream; answers are heard from when it is entered, or first read, on.

        Answers that are not taken at once give way to newer ones (`depth`, `unread`), so that who
        reads slowly hears of what the camera sees now; whoever must have every one takes them in
        a thread of its own.

        Args:
            frames: Where frames come from, drained in a thread at its own pace from when the worker
                has accepted the stream; a recording must be paced, or newer frames replace those
                that wait. None: `send` them.
            options: See `StreamOptions`.
        """
        opening = self._open_stream(options)
        rpcs = self._channel.stream_stream(
            conversation.PATH, _serialize, conversation.RESPONSE.FromString
        )
        stream = Stream(rpcs, opening, frames, self._starter)
        self._streams.add(stream)
        return stream

    def wait_until_ready(self, timeout: float = 30.0, *, model: str = "") -> None:
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
                last = self.health(model, timeout=remaining, retries=0)
            except TectumError as error:
                if not still_starting(error):
                    raise
                last = error
            if last is Health.SERVING:
                return
            time.sleep(min(POLL_INTERVAL, max(ends - time.monotonic(), 0)))
        raise never_ready(self.address, timeout, last)

    def close(self) -> None:
        """End every stream and call, and the connection."""
        self._closed = True
        for stream in list(self._streams):
            stream.close()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> None:
        self._streams = weakref.WeakSet[Stream]()
        self._starter = Starter()
        self._channel = (
            grpc.insecure_channel(self.address, self._channel_options)
            if self._tls is None
            else grpc.secure_channel(self.address, self._tls, self._channel_options)
        )

    def _run(self, call: Call[Answer]) -> Answer:
        """Make a call, and again where the worker says that helps and time is left."""
        plan = self._plan(call)
        ends = time.monotonic() + plan.budget
        for attempt in range(plan.retries + 1):
            try:
                return plan.read(self._attempt(plan, ends - time.monotonic()))
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
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, plan: Plan[Any], remaining: float) -> Any:
        call = plan.call
        try:
            rpc = self._channel.unary_unary(call.path, _serialize, call.response.FromString)
            if plan.deadline is not None:
                return rpc(call.request, timeout=max(remaining, 0.0), metadata=plan.metadata)
            # No deadline is told, so that the worker's default applies; only the wait is bounded.
            future = self._starter.start(lambda: rpc.future(call.request, metadata=plan.metadata))
            try:
                return future.result(timeout=remaining)
            finally:
                future.cancel()
        except grpc.FutureTimeoutError:
            raise plan.gave_up() from None
        except grpc.FutureCancelledError:
            raise Cancelled("the client was closed during the call") from None
        except grpc.RpcError as error:
            raise from_rpc(error, plan.request_id) from None
        except ValueError as error:
            # grpc's word for a channel that another thread closed between two lines here.
            if self._closed:
                raise ClientClosed("the client was closed before the call") from error
            raise


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
