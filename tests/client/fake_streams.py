"""What a fake worker answers on a stream: frames by arithmetic, probes by a clock that is ahead."""

from __future__ import annotations

import time

from google.protobuf.timestamp_pb2 import Timestamp
from tests.client import fake_answers, fake_errors
from tests.client.fake_answers import Unreadable

from tectum.v1 import call_pb2, model_pb2, stream_pb2


def clock(ahead: float | None) -> Timestamp:
    """The worker's clock now, so many seconds ahead of this one."""
    told = Timestamp()
    told.FromNanoseconds(time.time_ns() + round((ahead or 0.0) * 1e9))
    return told


def ready(
    info: call_pb2.ResponseInfo, ahead: float | None, read_as: model_pb2.ImageInput | None
) -> stream_pb2.StreamPerceptionResponse:
    """The acceptance; of a worker without a clock, as older ones had it."""
    told = stream_pb2.StreamReady(info=info, worker_time=clock(ahead), image_input=read_as)
    if ahead is not None:
        told.received_time.CopyFrom(clock(ahead))
    return stream_pb2.StreamPerceptionResponse(ready=told)


def read_otherwise(size: int) -> stream_pb2.StreamPerceptionResponse:
    """A reloaded model makes of pictures what was not made of them before."""
    read_as = model_pb2.ImageInput(
        size=size,
        resize_mode=model_pb2.RESIZE_MODE_STRETCH,
        interpolation=model_pb2.INTERPOLATION_BILINEAR,
    )
    changed = stream_pb2.InputChanged(image_input=read_as)
    return stream_pb2.StreamPerceptionResponse(input_changed=changed)


def time_told(
    probe: stream_pb2.ClockProbe, ahead: float | None
) -> stream_pb2.StreamPerceptionResponse:
    """The answer to a probe."""
    reply = stream_pb2.ClockReply(
        client_time=probe.client_time, received_time=clock(ahead), sent_time=clock(ahead)
    )
    return stream_pb2.StreamPerceptionResponse(clock=reply)


def answered(
    setup: stream_pb2.StreamSetup,
    frame: stream_pb2.StreamFrame,
    earlier: stream_pb2.StreamFrame | None,
    info: call_pb2.ResponseInfo,
) -> stream_pb2.FrameResult:
    """One frame's answer."""
    result = stream_pb2.FrameResult(frame_id=frame.frame_id, age=fake_errors.duration(0.003))
    try:
        vector = fake_answers.image_vector(fake_answers.pixels(frame.image))
    except Unreadable:
        result.status = stream_pb2.FRAME_STATUS_FAILED
        result.error.CopyFrom(fake_answers.unreadable("image"))
        return result
    result.status = stream_pb2.FRAME_STATUS_OK
    result.info.CopyFrom(info)
    if setup.embed:
        result.embedding.CopyFrom(fake_answers.embedding(vector, setup.vector))
    if setup.latent_actions:
        result.latent_action_status = stream_pb2.LATENT_ACTION_STATUS_INTERVAL_UNAVAILABLE
    if setup.latent_actions and earlier is not None:
        before = fake_answers.image_vector(fake_answers.pixels(earlier.image))
        latent = fake_answers.embedding(vector - before, setup.vector, fake_answers.LATENT)
        gap = frame.captured_at.ToNanoseconds() - earlier.captured_at.ToNanoseconds()
        result.latent_action_status = stream_pb2.LATENT_ACTION_STATUS_OK
        result.latent_action.latent.CopyFrom(latent)
        result.latent_action.interval.FromNanoseconds(gap)
        result.earlier_frame_id = earlier.frame_id
    return result
