"""What a stream for threads hears: read in a thread of its own, so that nothing grows old unread.

`conversation.py` reads the messages and `inbox.py` keeps the newest answers; here are the waiting,
and the opening anew of a stream that was lost. It does not know the stream that its user holds: one
that is dropped ends.
"""

import random
import threading
import time
from collections.abc import Iterable

import grpc

from tectum.conversation import LOOK
from tectum.errors import ClientClosed, TectumError
from tectum.failures import from_rpc
from tectum.inbox import Inbox
from tectum.inputs import Frame
from tectum.opening import Opening
from tectum.outbox import Outbox
from tectum.results import FrameResult


class Hearing:
    """One stream's: from `begin` on, until the stream is over."""

    def __init__(self, outbox: Outbox, opening: Opening, frames: Iterable[Frame] | None) -> None:
        self._outbox = outbox
        self._conversation = opening.conversation
        self._patience = opening.patience
        self._frames = frames
        self.inbox = Inbox(opening.conversation.slot.depth)
        """Under `_changed`."""
        self._changed = threading.Condition()
        self._begun = self._closed = self._over = False
        self._error: Exception | None = None

    def begin(self) -> None:
        """Hear from now on, unless it does already."""
        with self._changed:
            if self._begun or self._closed:
                return
            self._begun = True
            threading.Thread(target=self._hear_all, name="tectum-hear", daemon=True).start()
            threading.Thread(target=self._watch, name="tectum-watch", daemon=True).start()

    def close(self) -> None:
        """Nothing more is taken."""
        with self._changed:
            self._closed = self._over = True
            self._error = None
            self.inbox.clear()
            self._changed.notify_all()

    def until_accepted(self) -> None:
        """Wait until the worker has accepted the stream.

        Raises:
            Exception: what ended it before that.
            ClientClosed: it was closed before that.
        """
        with self._changed:
            while not (self._conversation.accepted or self._over):
                self._changed.wait()
            if not self._conversation.accepted:
                raise self._error or ClientClosed("the stream was closed before it was accepted")

    def take(self) -> FrameResult | None:
        """The next answer, once there is one; None: the stream has ended well.

        Raises:
            Exception: what ended it, after all answers that came before.
        """
        with self._changed:
            while (found := self.inbox.take(time.monotonic())) is None:
                if self._error is not None:
                    raise self._error
                if self._over:
                    return None
                self._changed.wait()
            return found

    def _hear_all(self) -> None:
        error: Exception | None = None
        try:
            while self._hear_one():
                pass
        except Exception as ended:
            error = ended
        self._outbox.close()
        with self._changed:
            self._error = None if self._closed else error
            self._over = True
            self._changed.notify_all()

    def _hear_one(self) -> bool:
        """Hear the worker's next message; False: the stream has ended well.

        Raises:
            Exception: what ended it, if that was this side.
            TectumError: the stream has failed.
        """
        conversation = self._conversation
        patience = None if conversation.ready else self._start_patience()
        try:
            answer = conversation.hear(next(self._outbox.rpc))
        except StopIteration:
            if conversation.ready is None:
                raise conversation.never_accepted() from None
            return False
        except ValueError as error:
            self._outbox.hang_up()
            raise conversation.unreadable(error) from error
        except grpc.RpcError as error:
            told = conversation.late or from_rpc(error, conversation.request_id)
            if conversation.failure is None and self._reopens(told):
                return True
            if conversation.failure is not None:
                raise conversation.failure from None
            raise told from None
        finally:
            if patience is not None:
                patience.cancel()
        if answer is None:
            self._begin_sending()
        else:
            with self._changed:
                if not self._closed:
                    self.inbox.put(answer)
                self._changed.notify()
        return True

    def _watch(self) -> None:
        """Give a call up that has gone silent: then it is lost, and heard no more."""
        conversation, closed = self._conversation, self._outbox.closed
        while not closed.wait(LOOK):
            # Looked at twice: a program that was stopped reads first what has come meanwhile.
            if conversation.silent(time.monotonic()) is None or closed.wait(LOOK):
                continue
            rpc, silent = self._outbox.rpc, conversation.silent(time.monotonic())
            if silent is not None:
                conversation.late = silent
                rpc.cancel()

    def _reopens(self, error: TectumError) -> bool:
        """Whether the stream, which was lost, is being opened anew."""
        dice = random.random()  # noqa: S311 - spreads load, guards nothing
        pause = self._conversation.pause_before_reopening(error, dice)
        return pause is not None and self._outbox.begin_again(pause)

    def _begin_sending(self) -> None:
        """The worker has accepted the stream: let frames leave."""
        self._outbox.accepted()
        with self._changed:
            self._changed.notify_all()
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
