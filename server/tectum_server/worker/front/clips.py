"""A clip off the wire: as many frames as the model wants, of one size, at its interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, image_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.wire import read_seconds

__all__ = ["read_clip"]

_INTERVAL_SLACK = 0.1
"""How far a stated frame interval may lie from the model's, as a share of it."""


async def read_clip(
    clip: image_pb2.Clip, call: Call, images: ImageReader, field: str
) -> NDArray[np.uint8]:
    """uint8[T, H, W, 3].

    Raises:
        Failure: the wrong number of frames, sizes or interval, or a frame that cannot be read.
    """
    spec = call.served.description.input.clip
    if len(clip.frames) != spec.frames:
        raise Failure(
            errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
            f"the model reads clips of {spec.frames} frames, found {len(clip.frames)}",
            f"{field}.frames",
        )
    if clip.HasField("frame_interval"):
        wanted = spec.frame_interval.seconds + spec.frame_interval.nanos / 1e9
        found = read_seconds(clip.frame_interval, f"{field}.frame_interval")
        if abs(found - wanted) > _INTERVAL_SLACK * wanted:
            raise Failure(
                errors_pb2.ERROR_REASON_INTERVAL_MISMATCH,
                f"the model reads frames {wanted:g} s apart, found {found:g} s",
                f"{field}.frame_interval",
            )
    frames, seconds = await images.read_all(clip.frames, f"{field}.frames")
    call.decode_seconds += seconds
    for frame in frames:
        if isinstance(frame, Failure):
            raise frame
    pixels = [frame for frame in frames if not isinstance(frame, Failure)]
    if len({frame.shape for frame in pixels}) != 1:
        raise Failure(
            errors_pb2.ERROR_REASON_SHAPE_MISMATCH, "the frames differ in size", f"{field}.frames"
        )
    return np.stack(pixels)
