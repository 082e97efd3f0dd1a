"""What a stream for threads sends: frames said in any thread, the newest of them when it can.

`conversation.py` decides what is said; `stream.py` is what its user holds.
"""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from tectum.errors import ClientClosed
from tectum.inputs import Frame
from tectum.opening import Opening
from tectum.starter import Starter
from tectum.v1 import stream_pb2

_Request = stream_pb2.StreamPerceptionRequest


class Outbox:
    """Hands frames from any thread to the one that sends; only the newest wait."""

    def __init__(
        self, rpcs: "grpc.StreamStreamMultiCallable[Any, Any]", opening: Opening, starter: Starter
    ) -> None:
        self._rpcs = rpcs
        self._metadata, self._setup = opening.metadata, opening.setup
        self._starter = starter
        self._conversation = opening.conversation
        self._changed = threading.Condition()
        self.closed = threading.Event()
        """Nothing is said any more."""
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
        self.closed.set()
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
        if self.closed.wait(pause):
            return False
        self.begin()
        if self.closed.is_set():  # while it began
            self.rpc.cancel()
        return True

    def _begun(self) -> Any:
        ended = threading.Event()
        rpc: Any = self._rpcs(self.messages(ended), metadata=self._metadata)

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
        conversation, setup = self._conversation, self._setup
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
