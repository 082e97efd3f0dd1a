"""How a live stream stands: what both kinds of stream tell of themselves at any time."""

from tectum.conversation import Conversation, StreamReady
from tectum.inbox import Inbox


class Standing:
    """One stream's, for whoever holds it.

    Args:
        conversation: what is said and heard.
        inbox: the answers that nobody has taken yet.
    """

    def __init__(self, conversation: Conversation, inbox: Inbox) -> None:
        self._conversation = conversation
        self._inbox = inbox

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
    def unread(self) -> int:
        """Answers that nobody took before newer ones came: who reads is slower than the camera."""
        return self._inbox.unread

    @property
    def clock_offset(self) -> float | None:
        """Seconds that the worker's clock is ahead of this one, as far as it was found out."""
        best = self._conversation.clock.best
        return None if best is None else best.offset
