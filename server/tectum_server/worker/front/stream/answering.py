"""One place of a stream in the engine's line: which frame it is for, and what is answered.

While it waits, a newer frame may take the first one's place, so that a robot among many is answered
by what its camera sees now; the engine says when that is worth a decoding. Its turn is the
stream's, whatever frame it is for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tectum.v1 import errors_pb2, image_pb2, model_pb2, stream_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call, item_failure
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader, Pixels
from tectum_server.worker.front.methods import latents
from tectum_server.worker.front.methods.batches import job_of
from tectum_server.worker.front.sharing import SharedPicture
from tectum_server.worker.front.stream.frames import Frame, Ring
from tectum_server.worker.front.stream.newest import Newest
from tectum_server.worker.front.stream.stream_setup import Setup
from tectum_server.worker.jobs import (
    Content,
    EmbedImages,
    Item,
    ItemFailure,
    ItemOutput,
    Operation,
)

__all__ = ["Answering"]

_MODES = {
    model_pb2.RESIZE_MODE_STRETCH: "stretch",
    model_pb2.RESIZE_MODE_CENTER_CROP: "center_crop",
}
_KINDS = {
    model_pb2.INTERPOLATION_BILINEAR: "bilinear",
    model_pb2.INTERPOLATION_BICUBIC: "bicubic",
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """A frame, read."""

    frame: Frame
    earlier: Frame | None
    """One model interval before; None: no latent action is asked for, or there is no such frame."""
    operations: tuple[Operation, ...]
    """What is computed of it."""
    items: tuple[Item, ...]
    """The same, with what it is computed from."""
    decode_seconds: float

    @property
    def gap(self) -> float:
        """Seconds between its two frames."""
        return 0.0 if self.earlier is None else self.frame.captured_at - self.earlier.captured_at

    def fits(self, other: _Seen) -> bool:
        """Whether the same is computed of both."""
        return self.operations == other.operations

    def forget_pair(self) -> None:
        """Hold the earlier frame no more."""
        if self.earlier is not None:
            self.earlier.drop()


class Answering:
    """A jobs.Renewal.

    Args:
        calls: the corridor all calls share.
        images: reads frames.
        setup: what the stream was asked for.
        ring: the frames that one may be paired with; None: no pairs are asked for.
        newest: where newer frames are; as many as may wait outdo the one that has the place.
        frame: the first; its holder is this place from now on.
        turn: since when the stream waits for its next answer, monotonic seconds.
    """

    def __init__(
        self,
        calls: Calls,
        images: ImageReader,
        setup: Setup,
        ring: Ring | None,
        newest: Newest,
        frame: Frame,
        turn: float,
    ) -> None:
        self.frame = frame
        """The one that the place is for now, held."""
        self.outdone: list[tuple[Frame, Failure | None]] = []
        """Frames that will have no answer of the engine's: a newer one took their place, or why."""
        self.had_its_turn = False
        """Whether the engine has computed it."""
        self._turn = turn
        self._calls = calls
        self._images = images
        self._setup = setup
        self._ring = ring
        self._newest = newest
        self._call = setup.call.for_frame(frame.expires, frame.memory)
        self._seen: _Seen | None = None
        self._offered: _Seen | None = None
        self._looked_at = frame.frame_id

    async def result(self) -> stream_pb2.FrameResult:
        """The answer, for whichever frame has the place in the end.

        Raises:
            Failure: that one has none.
        """
        try:
            self._seen = await self._see(self.frame)
            outputs: tuple[ItemOutput | ItemFailure, ...] = ()
            if self._seen.items:
                job = job_of(self._call, self._seen.operations[0], self._seen.items)
                captured = self.frame.expires - self.frame.lifespan
                job = replace(job, arrived=captured, turn=self._turn)
                # No place is booked: streams are as many as may be open, each with one frame.
                outputs = (await self._calls.compute(self._call, job, self)).outputs
                self.had_its_turn = True
            return self._told(self._seen, outputs)
        finally:
            self.settled(taken=False)  # of what is left, if anything is, it is too late
            seen, self._seen = self._seen, None
            if seen is not None:
                seen.forget_pair()

    async def newest(self, *, patient: bool) -> Content | None:
        """As jobs.Renewal.newest."""
        while True:
            frame = await self._newest.newer(
                self._looked_at,
                patient=patient,
                useless=lambda: time.monotonic() >= self.frame.expires,
            )
            if frame is None:
                return None
            self._looked_at = frame.frame_id
            if time.monotonic() >= frame.expires:
                self._outdo(frame, Failure(errors_pb2.ERROR_REASON_DEADLINE_PASSED, "stale"))
                continue
            if not self._is_paired_alike(frame):  # it waits for a place of its own, and is not read
                self._give_back(frame)
                continue
            try:
                seen = await self._see(frame)
            except Failure as failure:
                if failure.retry_delay is None:
                    self._outdo(frame, failure)
                else:
                    self._give_back(frame)
                continue
            except BaseException:
                self._give_back(frame)
                raise
            if self._seen is not None and self._seen.fits(seen):
                self._offered = seen
                return Content(seen.items, frame.expires)
            seen.forget_pair()
            self._give_back(frame)

    def settled(self, taken: bool) -> None:
        """As jobs.Renewal.settled."""
        seen, self._offered = self._offered, None
        if seen is None:
            return
        if taken:
            if self._seen is not None:
                self._seen.forget_pair()
            self._outdo(self.frame, None)
            self._seen, self.frame = seen, seen.frame
        else:
            seen.forget_pair()
            self._give_back(seen.frame)

    def _is_paired_alike(self, frame: Frame) -> bool:
        """Whether a frame has one to be paired with just if the place's own has."""
        has = self._ring is not None and self._ring.before(frame) is not None
        had = self._seen is not None and self._seen.earlier is not None
        return has == had

    def _outdo(self, frame: Frame, failure: Failure | None) -> None:
        frame.drop()
        self.outdone.append((frame, failure))

    def _give_back(self, frame: Frame) -> None:
        if not self._newest.put_back(frame):
            self._outdo(frame, None)

    async def _see(self, frame: Frame) -> _Seen:
        """A frame's pixels, and those of the one before it.

        Raises:
            Failure: it cannot be read, or not now.
        """
        # Now: the reader makes the ring forget it as soon as a newer frame is there.
        earlier = self._ring.before(frame) if self._ring is not None else None
        if earlier is not None:
            earlier.keep()
        call = replace(self._call, deadline=frame.expires, decode_seconds=0.0)
        try:
            pixels = await self._pixels(frame, call)
            before = None if earlier is None else await self._pixels_if_any(earlier, call)
        except BaseException:
            if earlier is not None:
                earlier.drop()
            raise
        if earlier is not None and before is None:
            earlier.drop()
            earlier = None
        operations = self._setup.operations(paired=before is not None)
        one, two = (pixels,), (pixels if before is None else before, pixels)
        items = tuple(
            Item(one if isinstance(asked, EmbedImages) else two, operation=asked)
            for asked in operations
        )
        return _Seen(frame, earlier, operations, items, call.decode_seconds)

    async def _pixels_if_any(self, frame: Frame, call: Call) -> Pixels | None:
        """An earlier frame's pixels; None if its picture is none, or can never be read.

        Raises:
            Failure: it cannot be read now.
        """
        try:
            return await self._pixels(frame, call)
        except Failure as failure:
            if failure.retry_delay is not None:
                raise
            return None

    async def _pixels(self, frame: Frame, call: Call) -> Pixels:
        """A frame's pixels, which take the place of what was sent.

        Raises:
            Failure: they cannot be had, or were brought to another size than the model's.
        """
        if frame.resized is not None and not self._setup.resizes_as(frame.resized):
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                f"resized as {_resizing(frame.resized)}; "
                f"the model now reads {_resizing(self._setup.image_input)}",
                "frame.resized",
            )
        if isinstance(frame.content, SharedPicture):
            reading = call.for_frame(call.deadline, frame.memory)
            frame.content = await self._images.copied(frame.content, reading, "frame.shared")
        elif isinstance(frame.content, image_pb2.Image):
            frame.content = await self._read(frame, frame.content, call)
        self._check_size(frame, frame.content)
        return frame.content

    async def _read(self, frame: Frame, sent: image_pb2.Image, call: Call) -> Pixels:
        """A frame's pixels; its memory holds these and no longer what was sent.

        Raises:
            Failure: they cannot be had.
        """
        memory = frame.memory
        reading = call.for_frame(call.deadline, memory)
        held = memory.held
        try:
            pixels = await self._images.read(sent, reading, "frame.image")
        except BaseException:
            memory.give_back(memory.held - held)
            raise
        memory.give_back(held)
        call.decode_seconds += reading.decode_seconds
        return pixels

    def _check_size(self, frame: Frame, pixels: Pixels) -> None:
        """A picture that was resized has the size at which the engine resamples nothing.

        Raises:
            Failure: it has another.
        """
        height, width, _ = pixels.shape
        side = self._setup.image_input.resize_to or self._setup.image_input.size
        if frame.resized is not None and (height, width) != (side, side):
            raise Failure(
                errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
                f"{height}×{width} pixels, said to be resized; that is {side}×{side}",
                "frame.image",
            )

    def _told(
        self, seen: _Seen, outputs: tuple[ItemOutput | ItemFailure, ...]
    ) -> stream_pb2.FrameResult:
        """What the engine found, as it is said.

        Raises:
            Failure: it found nothing.
        """
        call, setup = self._call, self._setup
        call.decode_seconds = seen.decode_seconds
        result = stream_pb2.FrameResult(
            frame_id=seen.frame.frame_id, status=stream_pb2.FRAME_STATUS_OK
        )
        if setup.interval is not None:
            result.latent_action_status = stream_pb2.LATENT_ACTION_STATUS_INTERVAL_UNAVAILABLE
        for asked, output in zip(seen.operations, outputs, strict=True):
            if isinstance(output, ItemFailure):
                raise item_failure(output, "")
            if isinstance(asked, EmbedImages):
                if setup.vector is not None:
                    result.embedding.CopyFrom(setup.vector.embedding(call, output))
            elif seen.earlier is not None:
                answer = latents.latent_action(output, call, latents.FLOAT32, seen.gap)
                result.latent_action.CopyFrom(answer)
                result.latent_action_status = stream_pb2.LATENT_ACTION_STATUS_OK
                result.earlier_frame_id = seen.earlier.frame_id
        result.info.CopyFrom(call.info())
        return result


def _resizing(spec: model_pb2.ImageInput | stream_pb2.Resized) -> str:
    """How a size is reached, in few words."""
    mode = _MODES.get(spec.resize_mode, "no known mode")
    kind = _KINDS.get(spec.interpolation, "no known interpolation")
    by = f" of {spec.resize_to}" if spec.resize_to else ""
    return f"{spec.size}×{spec.size} by {mode}{by}, {kind}"
