"""A live stream for threads: frames in at any time, answers out as an iterator.

`conversation.py` decides what is said; here are the waiting and the cancelling.
"""

import random
import threading
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from tectum.conversation import StreamReady
from tectum.errors import ClientClosed, TectumError
from tectum.failures import from_rpc
from tectum.inputs import Frame
from tectum.opening import Opening
from tectum.results import FrameResult
from tectum.starter import Starter
from tectum.v1 import stream_pb2

_Request = stream_pb2.StreamPerceptionRequest


class Outbox:
    """Hands frames from any thread to the one that sends; only the newest wait."""

    def __init__(
        self, rpcs: "grpc.StreamStreamMultiCallable[Any, Any]", opening: Opening, starter: Starter
    ) -> None:
        self._rpcs = rpcs
        self._opening = opening
        self._starter = starter
        self._conversation = opening.conversation
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self.rpc: Any = None
        """The call that sends; once a stream was lost, another one."""

    def say(self, frame: Frame) -> int:
        """Let a frame wait to be sent; returns its id at once."""
        with self._changed:
            frame_id = self._conversation.say(frame)
            self._changed.notify()
            return frame_id

    def finish(self) -> None:
        """No more frames; what waits is still sent."""
        with self._changed:
            self._conversation.slot.finished = True
            self._changed.notify()

    def close(self) -> None:
        """No more frames, and what waits is forgotten."""
        self._closed.set()
        with self._changed:
            self._conversation.close()
            self._changed.notify_all()

    def hang_up(self) -> None:
        """The same, and end the call."""
        self.close()
        if self.rpc is not None:
            self.rpc.cancel()

    def break_off(self, error: Exception) -> None:
        """End the stream over an error of this side, which is raised where results are read."""
        self._conversation.failure = error
        self.hang_up()

    def begin(self) -> None:
        """Begin the call that sends what is said here, as long as it lives."""
        self.rpc = self._starter.start(self._begun)

    def begin_again(self, pause: float) -> bool:
        """Begin another one after so many seconds; False: this was closed by then."""
        if self._closed.wait(pause):
            return False
        self.begin()
        if self._closed.is_set():  # while it began
            self.rpc.cancel()
        return True

    def _begun(self) -> Any:
        ended = threading.Event()
        rpc: Any = self._rpcs(self.messages(ended), metadata=self._opening.metadata)

        def end() -> None:
            ended.set()
            if self._conversation.reopens:
                with self._changed:
                    self._changed.notify_all()
            else:
                self.close()

        if not rpc.add_callback(end):
            end()
        return rpc

    def accepted(self) -> None:
        """Frames may leave now."""
        with self._changed:
            self._changed.notify()

    def messages(self, ended: threading.Event) -> Iterator[_Request]:
        """What the sending thread sends: the set-up, then frames until the call's end."""
        conversation, setup = self._conversation, self._opening.setup
        conversation.opening_with(setup)
        yield setup
        while True:
            with self._changed:
                message = None if ended.is_set() else conversation.to_send()
                while message is None and not (conversation.all_sent or ended.is_set()):
                    self._changed.wait()
                    message = None if ended.is_set() else conversation.to_send()
            if message is None:
                return
            try:
                conversation.dress(message)  # by now no newer one can take its place
            except Exception as error:
                self.break_off(error)
                return
            yield message

    def feed(self, frames: Iterable[Frame]) -> None:
        """Say every frame of an iterable, then finish; an error in it breaks the stream off."""
        try:
            for frame in frames:
                self.say(frame)
        except ClientClosed:
            return
        except Exception as error:
            self.break_off(error)
        else:
            self.finish()


class Stream:
    """A live camera's stream: an iterator over what became of its frames.

    Use it in a `with` block, which waits for the worker to accept the stream and ends it on the
    way out. `send` never blocks: at most `depth` frames wait to be sent, and a newer one takes the
    place of the oldest. Frames may be sent from one thread and results read from another.
    """

    def __init__(
        self,
        rpcs: "grpc.StreamStreamMultiCallable[Any, Any]",
        opening: Opening,
        frames: Iterable[Frame] | None,
        starter: Starter,
    ) -> None:
        self._conversation = opening.conversation
        self._outbox = Outbox(rpcs, opening, starter)
        self._patience = opening.patience
        self._closed = False
        self._outbox.begin()
        # Neither the feeding nor the sending thread holds the stream, so that one that is simply
        # dropped is collected, and ends.
        weakref.finalize(self, self._outbox.hang_up)
        self._frames = frames

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
        """Let a frame wait to be sent, in place of the oldest if `depth` do; never blocks.

        Returns:
            The id that its answer will carry.

        Raises:
            InvalidInput: not a frame the stream may carry now.
            TooLarge: it makes a larger message than the client sends; others may follow.
            ClientClosed: the stream has ended.
        """
        return self._outbox.say(frame)

    def finish(self) -> None:
        """Say that no more frames come; the answers to those sent still do."""
        self._outbox.finish()

    def close(self) -> None:
        """End the stream now."""
        self._closed = True
        self._outbox.hang_up()

    def __enter__(self) -> Self:
        try:
            if self._conversation.ready is None:
                self._hear()
        except StopIteration:
            raise ClientClosed("the stream was closed before it was accepted") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FrameResult]:
        return self

    def __next__(self) -> FrameResult:
        result = None
        while result is None:
            result = self._hear()
        return result

    def _hear(self) -> FrameResult | None:
        """The worker's next message; StopIteration when the stream has ended well."""
        conversation = self._conversation
        patience = None if conversation.ready else self._start_patience()
        try:
            result = conversation.hear(next(self._outbox.rpc))
        except StopIteration:
            self._outbox.close()
            if conversation.ready is None:
                raise conversation.never_accepted() from None
            raise
        except ValueError as error:
            self.close()
            raise conversation.unreadable(error) from error
        except grpc.RpcError as error:
            told = conversation.late or from_rpc(error, conversation.request_id)
            if conversation.failure is None and self._reopens(told):
                return None
            self._outbox.close()
            if conversation.failure is not None:
                raise conversation.failure from None
            if self._closed:
                raise StopIteration from None
            raise told from None
        finally:
            if patience is not None:
                patience.cancel()
        if result is None:
            self._begin_sending()
        return result

    def _reopens(self, error: TectumError) -> bool:
        """Whether the stream, which was lost, is being opened anew."""
        dice = random.random()  # noqa: S311 - spreads load, guards nothing
        pause = self._conversation.pause_before_reopening(error, dice)
        return pause is not None and self._outbox.begin_again(pause)

    def _begin_sending(self) -> None:
        """The worker has accepted the stream: let frames leave."""
        self._outbox.accepted()
        if self._frames is not None:
            frames, self._frames = self._frames, None
            threading.Thread(
                target=self._outbox.feed, args=(frames,), name="tectum-feed", daemon=True
            ).start()

    def _start_patience(self) -> threading.Timer:
        conversation, cancel, seconds = self._conversation, self._outbox.rpc.cancel, self._patience

        def give_up() -> None:
            conversation.late = conversation.too_late(seconds)
            cancel()

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        return timer
