"""Clips off the wire: as many frames as the model wants, of one size, at its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from tectum.v1 import errors_pb2, image_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.images import ImageReader, Opened, Pixels
from tectum_server.worker.front.messages.wire import check_interval

__all__ = ["read_clip", "read_clips"]


async def read_clip(clip: image_pb2.Clip, call: Call, images: ImageReader, field: str) -> Pixels:
    """uint8[T, H, W, 3].

    Raises:
        Failure: the wrong number of frames, sizes or interval, or a frame that cannot be read.
    """
    (found,) = await read_clips({field: clip}, call, images)
    if isinstance(found, Failure):
        raise found
    return found


async def read_clips(
    clips: Mapping[str, image_pb2.Clip], call: Call, images: ImageReader
) -> list[Pixels | Failure]:
    """Every clip, uint8[T, H, W, 3], or why it cannot be read, in order.

    Each frame is read to its place in its clip: no clip is held twice.

    Args:
        clips: by their paths in the request.
        call: whose model counts.
        images: reads their frames.

    Raises:
        Failure: together they need more memory than there is, for now or ever.
    """
    found: dict[str, list[Opened] | Failure] = {}
    for field, clip in clips.items():
        found[field] = await _opened(clip, call, images, field)
    sound = {field: frames for field, frames in found.items() if isinstance(frames, list)}
    together = [frame for frames in sound.values() for frame in frames]
    call.memory.take({frame.field: frame.nbytes for frame in together})
    pixels = {field: _place(frames) for field, frames in sound.items()}
    read = iter(await images.fill(together, call))
    for field, frames in sound.items():
        wrong = [one for one in islice(read, len(frames)) if isinstance(one, Failure)]
        if wrong:
            found[field] = wrong[0]
    return [
        pixels[field] if isinstance(frames, list) else frames for field, frames in found.items()
    ]


async def _opened(
    clip: image_pb2.Clip, call: Call, images: ImageReader, field: str
) -> list[Opened] | Failure:
    """Its frames, all of one size."""
    try:
        _check(clip, call, field)
    except Failure as failure:
        return failure
    given = {f"{field}.frames[{index}]": frame for index, frame in enumerate(clip.frames)}
    frames: list[Opened] = []
    for frame in await images.open(given, call):
        if isinstance(frame, Failure):
            return frame
        frames.append(frame)
    if len({(frame.height, frame.width) for frame in frames}) != 1:
        return Failure(
            errors_pb2.ERROR_REASON_SHAPE_MISMATCH, "the frames differ in size", f"{field}.frames"
        )
    return frames


def _place(frames: Sequence[Opened]) -> Pixels:
    """Room for a clip's pixels, of which each frame has its part."""
    pixels = np.empty((len(frames), frames[0].height, frames[0].width, 3), np.uint8)
    for frame, place in zip(frames, pixels, strict=True):
        frame.into = place
    return pixels


def _check(clip: image_pb2.Clip, call: Call, field: str) -> None:
    """Let pass what may be a clip of the model's, whatever its frames show."""
    spec = call.served.description.input.clip
    if len(clip.frames) != spec.frames:
        raise Failure(
            errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
            f"the model reads clips of {spec.frames} frames, found {len(clip.frames)}",
            f"{field}.frames",
        )
    if clip.HasField("frame_interval"):
        place = f"{field}.frame_interval"
        check_interval(clip.frame_interval, spec.frame_interval, "frames", place)
