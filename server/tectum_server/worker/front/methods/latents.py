"""PredictLatentActions: neighbouring frames paired, intervals checked, answers built."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import errors_pb2, latent_action_pb2, model_pb2, tensor_pb2
from tectum_server.worker.durations import duration, seconds
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.messages.wire import (
    checked_data_type,
    embedding,
    out_of_range,
    raw_image,
    read_seconds,
    read_timestamp,
    tensor,
)
from tectum_server.worker.front.methods.batches import compute_items
from tectum_server.worker.front.status import item_error
from tectum_server.worker.jobs import Item, ItemOutput, LatentActions

__all__ = ["FLOAT32", "Interval", "latent_action", "predict", "require"]

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32
_ROUNDING = 1e-6
"""Seconds by which fractions may fail to add up: the time of day as a float64 has steps of a
quarter of a microsecond."""
_Request = latent_action_pb2.PredictLatentActionsRequest


class Interval:
    """The interval a model was trained at, and how far a pair may lie from it."""

    def __init__(self, spec: model_pb2.LatentActionInput) -> None:
        self.seconds = seconds(spec.interval)
        self.tolerance = seconds(spec.tolerance)

    @property
    def reach(self) -> float:
        """Seconds that a pair may be apart at most."""
        return self.seconds + self.tolerance + _ROUNDING

    def holds(self, found: float) -> bool:
        """Whether a pair so many seconds apart is one the model knows."""
        return found > 0 and abs(found - self.seconds) <= self.tolerance + _ROUNDING

    def mismatch(self, found: float, field: str) -> Failure:
        """What is said of a pair that is not."""
        return Failure(
            errors_pb2.ERROR_REASON_INTERVAL_MISMATCH,
            f"the model knows frames {self.seconds:g} ± {self.tolerance:g} s apart, "
            f"these are {found:g} s apart",
            field,
        )


async def predict(
    request: _Request, call: Call, calls: Calls, images: ImageReader
) -> latent_action_pb2.PredictLatentActionsResponse:
    """Answer the request.

    Raises:
        Failure: the request as a whole cannot be answered.
    """
    require(call, request.decode_actions, request.predict_frames)
    call.answer_in("latent_action")
    data_type = checked_data_type(request.data_type, "data_type")
    if len(request.frames) < 2:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            f"at least 2 frames are needed, found {len(request.frames)}",
            "frames",
        )
    interval = Interval(call.served.description.input.latent_action)
    asks = {LatentActions.name: len(request.frames) - 1}
    with calls.admit_items(len(request.frames), "frames", call, asks):
        gaps = _gaps(request, interval)
        pixels = await images.read_all(
            {f"frames[{index}].image": frame.image for index, frame in enumerate(request.frames)},
            call,
        )
        items = [
            _pair(pixels[index], pixels[index + 1], gap, interval, index + 1)
            for index, gap in enumerate(gaps)
        ]
        operation = LatentActions(request.decode_actions, request.predict_frames)
        outputs = await compute_items(calls, call, operation, items, "frames")
    results = []
    for index, (output, gap) in enumerate(zip(outputs, gaps, strict=True)):
        if isinstance(output, Failure):
            error = item_error(output, f"frames[{index + 1}]")
            results.append(latent_action_pb2.LatentActionResult(error=error))
        else:
            answer = latent_action(output, call, data_type, gap)
            results.append(latent_action_pb2.LatentActionResult(latent_action=answer))
    return latent_action_pb2.PredictLatentActionsResponse(info=call.info(), results=results)


def require(call: Call, decode_actions: bool, predict_frames: bool) -> None:
    """Let pass what the model can do.

    Raises:
        Failure: CAPABILITY_MISSING.
    """
    call.served.require(model_pb2.CAPABILITY_PREDICT_LATENT_ACTIONS)
    if decode_actions:
        call.served.require(model_pb2.CAPABILITY_DECODE_ACTIONS)
    if predict_frames:
        call.served.require(model_pb2.CAPABILITY_PREDICT_FRAMES)


def latent_action(
    output: ItemOutput, call: Call, data_type: int, interval: float
) -> latent_action_pb2.LatentAction:
    """One pair's answer as the contract carries it."""
    vector, codes, actions, frame = output.arrays
    answer = latent_action_pb2.LatentAction(
        latent=embedding(vector, call.served.space("latent_action"), data_type),
        codes=codes.tolist(),
        interval=duration(interval),
    )
    if actions.size:
        answer.decoded_actions.CopyFrom(tensor(actions))
    if frame.size:
        answer.predicted_frame.CopyFrom(raw_image(frame))
    return answer


def _gaps(request: _Request, interval: Interval) -> list[float]:
    """Seconds between neighbours.

    Raises:
        Failure: neither times nor an interval, or both, or times for some frames only.
    """
    timed = sum(frame.HasField("captured_at") for frame in request.frames)
    if request.HasField("interval"):
        if timed:
            raise out_of_range("interval", "must be absent when frames carry captured_at")
        asserted = read_seconds(request.interval, "interval")
        if not interval.holds(asserted):
            raise interval.mismatch(asserted, "interval")
        return [asserted] * (len(request.frames) - 1)
    if not timed:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            "frames without captured_at need an asserted interval",
            "interval",
        )
    if timed < len(request.frames):
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            "either all frames carry captured_at or none does",
            "frames",
        )
    times = [
        read_timestamp(frame.captured_at, f"frames[{index}].captured_at")
        for index, frame in enumerate(request.frames)
    ]
    return [later - earlier for earlier, later in pairwise(times)]


def _pair(
    earlier: NDArray[np.uint8] | Failure,
    later: NDArray[np.uint8] | Failure,
    gap: float,
    interval: Interval,
    index: int,
) -> Item | Failure:
    """The pair that ends at frame `index`, or why there is none."""
    if isinstance(earlier, Failure):
        return earlier
    if isinstance(later, Failure):
        return later
    if not interval.holds(gap):
        return interval.mismatch(gap, f"frames[{index}].captured_at")
    return Item((earlier, later))
