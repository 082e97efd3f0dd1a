"""Frames of a live camera in few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.server.worker.asking import IMAGE
from tests.server.worker.messages import seconds
from tests.server.worker.scripted import ScriptedEngine
from tests.server.worker.serving import Camera

from tectum.v1 import stream_pb2
from tectum_server.worker.jobs import Job

OK, STALE = stream_pb2.FRAME_STATUS_OK, stream_pb2.FRAME_STATUS_STALE
SUPERSEDED, FAILED = stream_pb2.FRAME_STATUS_SUPERSEDED, stream_pb2.FRAME_STATUS_FAILED
PAIRED = stream_pb2.LATENT_ACTION_STATUS_OK
UNPAIRED = stream_pb2.LATENT_ACTION_STATUS_INTERVAL_UNAVAILABLE


def frame(
    number: int, at: float | None = None, lifespan: float = 60.0, image: Any = IMAGE
) -> stream_pb2.StreamFrame:
    """A frame captured at a moment of the epoch, or at none that it knows."""
    sent = stream_pb2.StreamFrame(frame_id=number, image=image, lifespan=seconds(lifespan))
    if at is not None:
        sent.captured_at.FromNanoseconds(round(at * 1e9))
    return sent


def statuses(results: Sequence[stream_pb2.FrameResult]) -> dict[int, int]:
    """What became of each frame; none may have two answers."""
    assert len({result.frame_id for result in results}) == len(results)
    return {result.frame_id: result.status for result in results}


def begin(camera: Camera, engine: ScriptedEngine, number: int = 1) -> Job:
    """Send a frame that the engine takes and holds."""
    camera.send(frame(number))
    return engine.begun.get(timeout=30)
