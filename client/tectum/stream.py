"""A live stream for threads: frames in at any time, answers out as an iterator.

What its user holds; `outbox.py` sends, and `hearing.py` hears.
"""

import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from tectum.hearing import Hearing
from tectum.inputs import Frame
from tectum.opening import Opening
from tectum.outbox import Outbox
from tectum.results import FrameResult
from tectum.standing import Standing
from tectum.starter import Starter


class Stream(Standing):
    """A live camera's stream: an iterator over what became of its frames.

    Use it in a `with` block, which waits for the worker to accept the stream and ends it on the
    way out. `send` never blocks: at most `depth` frames wait to be sent, and a newer one takes the
    place of the oldest. Frames may be sent from one thread and results read from another.

    Answers are read off the wire as they come, in a thread of its own, and of those that are not
    taken at once the newest wait, `depth` OK ones: who reads more slowly than the camera hears of
    its newest frame, and how old that is by then. `unread` counts what gave way. Whoever must have
    every answer, as a recorder of latent actions, lets another thread take them.
    """

    def __init__(
        self,
        rpcs: "grpc.StreamStreamMultiCallable[Any, Any]",
        opening: Opening,
        frames: Iterable[Frame] | None,
        starter: Starter,
    ) -> None:
        self._outbox = Outbox(rpcs, opening, starter)
        self._hearing = Hearing(self._outbox, opening, frames)
        super().__init__(opening.conversation, self._hearing.inbox)
        self._outbox.begin()
        # No thread that sends, hears or feeds holds the stream, so that one that is simply
        # dropped is collected, and ends.
        weakref.finalize(self, self._outbox.hang_up)

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
        self._hearing.close()
        self._outbox.hang_up()

    def __enter__(self) -> Self:
        try:
            self._hearing.begin()
            self._hearing.until_accepted()
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
        self._hearing.begin()
        result = self._hearing.take()
        if result is None:
            raise StopIteration
        return result
