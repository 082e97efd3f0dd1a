"""Clips off the wire: as many frames as the model wants, of one size, at its interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tectum.v1 import errors_pb2, image_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.images import ImageReader, Pixels
from tectum_server.worker.front.wire import check_interval

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

    Args:
        clips: by their paths in the request.
        call: whose model counts.
        images: reads their frames.

    Raises:
        Failure: together they need more memory than there is, for now or ever.
    """
    wrong: dict[str, Failure] = {}
    for field, clip in clips.items():
        try:
            _check(clip, call, field)
        except Failure as failure:
            wrong[field] = failure
    frames = {
        f"{field}.frames[{index}]": frame
        for field, clip in clips.items()
        if field not in wrong
        for index, frame in enumerate(clip.frames)
    }
    read = iter(await images.read_all(frames, call))
    return [
        wrong[field] if field in wrong else _stacked([next(read) for _ in clip.frames], field)
        for field, clip in clips.items()
    ]


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


def _stacked(frames: list[Pixels | Failure], field: str) -> Pixels | Failure:
    pixels: list[Pixels] = []
    for frame in frames:
        if isinstance(frame, Failure):
            return frame
        pixels.append(frame)
    if len({frame.shape for frame in pixels}) != 1:
        return Failure(
            errors_pb2.ERROR_REASON_SHAPE_MISMATCH, "the frames differ in size", f"{field}.frames"
        )
    return np.stack(pixels)
