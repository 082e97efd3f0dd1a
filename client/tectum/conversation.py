"""A live stream's bookkeeping, without its transport.

Checks and numbers the frames that go out, keeps only the newest of those still waiting, and
reads what comes back. No grpc, no threads, no tasks: `stream.py` and `aio_stream.py` are the
shells that wait and send.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tectum import requests, results
from tectum.clock import Clock, sample
from tectum.durations import (
    duration,
    signed_duration,
    timestamp,
    timestamp_seconds,
)
from tectum.errors import (
    ClientClosed,
    DeadlineExceeded,
    InternalError,
    TectumError,
    Unavailable,
    invalid,
)
from tectum.images import describe, put_image
from tectum.inbox import Answer
from tectum.inputs import Frame
from tectum.reopening import Outage
from tectum.results import ResponseInfo
from tectum.sending import RAW, Sending
from tectum.sharing import SharedPlaces
from tectum.v1 import model_pb2, stream_pb2

PATH = "/tectum.v1.PerceptionService/StreamPerception"
"""The rpc."""
RESPONSE = stream_pb2.StreamPerceptionResponse
"""What comes back."""
SILENT, SILENT_SENDING = 10.0, 60.0
"""A stream of which nothing is heard for so many seconds beyond its frames' lifespan, while some
are under way, is lost: by then the worker has said of each what became of it. The second where one
is still being sent, as over a thin link."""
LOOK = 0.5
"""Seconds between looks at that, and for what came meanwhile to be read."""


@dataclass(frozen=True, slots=True)
class StreamReady:
    """The worker accepted the stream."""

    info: ResponseInfo
    """The model that will answer; its timings are empty."""
    worker_time: float
    """The worker's clock when it accepted, seconds since 1970."""


@dataclass(slots=True)
class Slot:
    """What waits to be sent: the newest frames."""

    depth: int = 1
    """How many of them, at most."""
    dropped: int = 0
    """Frames replaced by newer ones before they could be sent."""
    finished: bool = False
    """Nothing more will be put in; what waits may still be taken."""
    closed: bool = False
    """Nothing more will be taken out either."""
    _waiting: deque[stream_pb2.StreamPerceptionRequest] = field(default_factory=deque)
    """The oldest first."""

    def check(self) -> None:
        """Raise ClientClosed if the slot is finished."""
        if self.finished:
            raise ClientClosed("the stream takes no more frames")

    def put(self, message: stream_pb2.StreamPerceptionRequest) -> None:
        """Let a frame wait, in place of the oldest if as many do as may.

        Raises:
            ClientClosed: the slot is finished.
        """
        self.check()
        if len(self._waiting) >= self.depth:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(message)

    @property
    def waits(self) -> bool:
        """Whether a frame does."""
        return bool(self._waiting)

    @property
    def pixel_bytes(self) -> int:
        """Of the next frame; 0: none waits, or not as pixels."""
        raw = self._waiting[0].frame.image.raw if self._waiting else None
        return 0 if raw is None else raw.height * raw.width * 3

    def take(self) -> stream_pb2.StreamPerceptionRequest | None:
        """The oldest frame that waits, which then waits no more. None: none does."""
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Finish, and forget what waits."""
        self._waiting.clear()
        self.finished = self.closed = True


@dataclass(slots=True)
class Conversation:
    """What one stream has said and heard so far."""

    request_id: str
    """The id that the stream was opened with."""
    max_message_bytes: int
    """Largest message to send; the transport would end the stream over one that is larger."""
    own_clock: bool = True
    """Whether frames are timed by this clock, not by the worker's."""
    sending: Sending = RAW
    """How pixels travel."""
    now: Callable[[], float] = time.time
    """This clock."""
    clock: Clock = field(default_factory=Clock)
    """How far the worker's is ahead of it."""
    slot: Slot = field(default_factory=Slot)
    """What waits to be sent."""
    ready: StreamReady | None = None
    """The worker's acceptance. None: it has not been read yet."""
    failure: Exception | None = None
    """Why this side broke the stream off. None: it did not."""
    late: DeadlineExceeded | Unavailable | None = None
    """That the worker did not accept the stream in time, or is silent. None: neither."""
    lifespan: float = 1.0
    """Seconds for which its frames are of use; the longest of them."""
    outage: Outage = field(default_factory=Outage)
    """What to do where the stream is lost."""
    accepted: bool = False
    """Whether the worker ever accepted it."""
    lost: int = 0
    """Frames that were under way when the stream was lost; they get no answer."""
    _under_way: dict[int, float | None] = field(default_factory=dict)
    """Frames without an answer, and when each was captured, monotonic; None: not known here."""
    _sign: float = 0.0
    """When something was heard last, or the first frame under way left, monotonic."""
    _leaving: bool = False
    """Whether a frame is still being sent."""
    _last_id: int = -1
    _last_capture: float | None = None
    _opened_at: float = 0.0
    _answers_probes: bool = False
    _read_as: model_pb2.ImageInput | None = None
    """What the worker makes of pictures, where it was asked."""
    _may_share: bool = False
    """Whether the worker can be asked for shared memory, and was not yet."""
    _shares: int = 0
    """Bytes of a place that it was asked for. 0: it was not, or has answered."""
    _has_opened: bool = False
    """Whether it is to be told that what it gave is open."""
    _places: SharedPlaces | None = None
    """What it gave."""

    def say(self, frame: Frame) -> int:
        """Let a frame wait to be sent.

        Returns:
            The id that its answer, if it gets one, will carry.

        Raises:
            InvalidInput: not a frame the stream may carry now.
            TooLarge: it makes a larger message than the client sends.
            ClientClosed: the stream has ended.
        """
        self.slot.check()
        given: object = frame  # who checks no types may give the picture itself
        if not isinstance(given, Frame):
            found = f"found {describe(given)}"
            allowed = "tectum.Frame, such as Frame(picture, captured_at=time.time())"
            raise invalid("frame", f"{found}; allowed: {allowed}", reason="SHAPE_MISMATCH")
        frame_id = self._last_id + 1 if frame.frame_id is None else frame.frame_id
        if not self._last_id < frame_id < 2**64:
            raise invalid("frame_id", f"found {frame_id} after {self._last_id}; allowed: rising")
        request = stream_pb2.StreamPerceptionRequest()
        message = request.frame
        message.frame_id = frame_id
        put_image(message.image, frame.image, "image")
        self.sending.check(message.image)
        captured_at = frame.captured_at
        if captured_at is not None:
            if self._last_capture is not None and captured_at <= self._last_capture:
                found = f"found {captured_at!r} after {self._last_capture!r}"
                raise invalid(
                    "captured_at", f"{found}; allowed: rising", reason="INTERVAL_MISMATCH"
                )
            message.captured_at.CopyFrom(timestamp(captured_at, "captured_at"))
        if frame.lifespan is not None:
            message.lifespan.CopyFrom(duration(requests.lifespan(frame.lifespan), "lifespan"))
            self.lifespan = max(self.lifespan, frame.lifespan)
        requests.check_size(request, self.max_message_bytes, message)
        self.slot.put(request)
        self._last_id = frame_id
        self._last_capture = self._last_capture if captured_at is None else captured_at
        return frame_id

    def hear(self, response: stream_pb2.StreamPerceptionResponse) -> Answer | None:
        """Read a message of the worker's. None: it answers no frame.

        Raises:
            ValueError: the message contradicts the contract.
        """
        which, heard = response.WhichOneof("message"), self.now()
        self._sign = time.monotonic()
        if (which == "ready") == (self.ready is not None) or which is None:
            raise ValueError(f"a stream sent {which} out of turn")
        if which == "result":
            captured = self._under_way.pop(response.result.frame_id, None)
            if (places := self._places) is not None:  # another thread may let go of them
                places.free(response.result.frame_id)
            self.outage.over()
            return Answer(results.frame_result(response.result), time.monotonic(), captured)
        if which == "clock":
            sent, received, answered = (
                timestamp_seconds(told)
                for told in (
                    response.clock.client_time,
                    response.clock.received_time,
                    response.clock.sent_time,
                )
            )
            self.clock.hear(sample(sent, received, answered, heard))
            return None
        if which == "shared_memory":
            self._open_places(response.shared_memory)
            return None
        if which == "input_changed":
            self._read_as = response.input_changed.image_input
            return None
        ready = response.ready
        if ready.HasField("image_input"):
            self._read_as = ready.image_input
        answered = timestamp_seconds(ready.worker_time)
        self._may_share = self.sending.shares and ready.shares_memory
        self._answers_probes = self.own_clock and ready.HasField("received_time")
        if self._answers_probes:
            received = timestamp_seconds(ready.received_time)
            self.clock.hear(sample(self._opened_at, received, answered, heard))
        self.ready = StreamReady(results.response_info(ready.info), answered)
        self.accepted = True
        self.outage.accepted(time.monotonic())
        return None

    @property
    def reopens(self) -> bool:
        """Whether it may outlive a call that it is sent over."""
        return self.accepted and self.outage.patience > 0

    def pause_before_reopening(self, error: TectumError, dice: float) -> float | None:
        """Seconds to wait before the stream is opened anew.

        Args:
            error: What ended it.
            dice: Uniform in [0, 1).

        Returns:
            None: it has ended, and the error is to be raised.
        """
        self._share_no_more()
        if not self.accepted or self.slot.closed:
            return None
        self.lost += len(self._under_way)
        self._under_way.clear()
        self.ready, self._read_as, self.late, self._leaving = None, None, None, False
        self.clock = Clock()  # another worker may answer
        return self.outage.pause(error, time.monotonic(), dice)

    def close(self) -> None:
        """Nothing is said any more, and what waits is forgotten."""
        self.slot.close()
        self._share_no_more()

    def _open_places(self, told: stream_pb2.SharedMemory) -> None:
        asked, self._shares = self._shares, 0
        if not asked:
            raise ValueError("a stream told of shared memory that it was not asked for")
        self._places = SharedPlaces.open(told, asked)
        self._has_opened = self._places is not None
        if self.slot.closed:  # meanwhile
            self._share_no_more()

    def _share_no_more(self) -> None:
        places, self._places = self._places, None
        self._may_share, self._shares, self._has_opened = False, 0, False
        if places is not None:
            places.close()

    def opening_with(self, setup: stream_pb2.StreamPerceptionRequest) -> None:
        """Say in a setup when it leaves, which is now."""
        self._opened_at = self.now()
        setup.setup.client_time.CopyFrom(timestamp(max(0.0, self._opened_at), "client_time"))

    def to_send(self) -> stream_pb2.StreamPerceptionRequest | None:
        """What to send next, if a frame waits and the worker has accepted the stream.

        No frame leaves earlier: a refused stream costs no pixels, and grpc.aio loses a refusal
        that arrives while it is writing. Before a frame, now and then, goes what asks for the
        worker's clock: who sends no frames does not need it.
        """
        asked = time.monotonic()
        if self._leaving:  # and has left: else nobody would ask for what is next
            self._leaving, self._sign = False, asked
        if self._has_opened:
            self._has_opened = False
            opened = stream_pb2.SharedMemoryOpened()
            return stream_pb2.StreamPerceptionRequest(opened=opened)
        if self.ready is None or not self.slot.waits:
            return None
        if self._answers_probes and self.clock.due(asked):
            self.clock.asked(asked)
            probe = stream_pb2.ClockProbe(client_time=timestamp(max(0.0, self.now()), "probe"))
            return stream_pb2.StreamPerceptionRequest(probe=probe)
        if self._may_share and (size := self.slot.pixel_bytes):
            self._may_share, self._shares = False, size
            share = stream_pb2.SharedMemoryRequest(place_bytes=size)
            return stream_pb2.StreamPerceptionRequest(share=share)
        message, best = self.slot.take(), self.clock.best
        if message is None:
            return None
        if not self._under_way:
            self._sign = asked
        self._leaving = True
        self._under_way[message.frame.frame_id] = self._captured(message.frame)
        if best is not None and message.frame.HasField("captured_at"):
            message.frame.clock_offset.CopyFrom(signed_duration(best.offset))
        return message

    def _captured(self, frame: stream_pb2.StreamFrame) -> float | None:
        """When a frame was, monotonic, if it is timed by this clock."""
        if not (self.own_clock and frame.HasField("captured_at")):
            return None
        return time.monotonic() - (self.now() - timestamp_seconds(frame.captured_at))

    def dressed(self, message: stream_pb2.StreamPerceptionRequest) -> bool:
        """Whether what is to be sent travels as it is; else `dress` it, which may take a while."""
        raw = message.WhichOneof("message") == "frame" and message.frame.image.HasField("raw")
        nothing_to_do = self.sending == RAW or (self.sending.shares and self._places is None)
        return nothing_to_do or not raw

    def dress(self, message: stream_pb2.StreamPerceptionRequest) -> None:
        """Make of a frame what shall travel, in place."""
        if not self.dressed(message):
            self.sending.dress(message.frame, self._read_as, self._places)

    @property
    def all_sent(self) -> bool:
        """Whether nothing will be sent any more, once `to_send` has said None."""
        return self.slot.closed or (self.slot.finished and self.ready is not None)

    def too_late(self, patience: float) -> DeadlineExceeded:
        """The error for a worker that did not accept the stream within so many seconds."""
        message = f"the worker did not accept the stream within {patience:g} s"
        return DeadlineExceeded(message, request_id=self.request_id)

    def silent(self, now: float) -> Unavailable | None:
        """The error for a worker of which nothing is heard any more; None: it is, or need not be.

        Args:
            now: monotonic seconds.
        """
        allowed = self.lifespan + (SILENT_SENDING if self._leaving else SILENT)
        if self.ready is None or not self._under_way or now - self._sign <= allowed:
            return None
        message = f"nothing was heard of frames under way for {now - self._sign:.1f} s"
        return Unavailable(message, request_id=self.request_id)

    def never_accepted(self) -> InternalError:
        """The error for a worker that ended the stream well without accepting it."""
        message = "the worker ended the stream before it accepted it"
        return InternalError(message, request_id=self.request_id)

    def broken_off(self) -> Unavailable:
        """The error for a worker that ended the stream while something was on its way out."""
        message = "the worker ended the stream while a frame was being sent; open it anew"
        if self.ready is None:  # grpc.aio has lost the reason
            message = "the worker refused the stream, and why was lost on the way; try again"
        return Unavailable(message, request_id=self.request_id)

    def unreadable(self, error: ValueError) -> InternalError:
        """The error for an answer that contradicts the contract."""
        message = f"the worker's answer cannot be read: {error}"
        return InternalError(message, request_id=self.request_id)
