"""Rollout: frames and actions read, frames embedded, candidates rolled out, answers built.

Two jobs one after the other: the trunk looks at each frame once, and every candidate, an item of
its own, starts from what it said. So no batch holds more than so many candidates, whoever asked for
them, and who is more urgent waits for one batch at most. The first is refused if there is no time
for both.

Letters: T frames seen, K candidates, F frames predicted, k actions between two frames, A numbers in
an action, N latents of a frame, D their width, S the model's side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import call_pb2, errors_pb2, image_pb2, model_pb2, rollout_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call, item_failure
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.messages.wire import (
    check_interval,
    checked_data_type,
    embedding,
    out_of_range,
    raw_image,
    read_floats,
    tensor,
)
from tectum_server.worker.front.methods.batches import compute_items, run_items
from tectum_server.worker.front.status import item_error
from tectum_server.worker.jobs import (
    EmbedImages,
    Item,
    ItemFailure,
    ItemOutput,
    Rollout,
    Sequel,
    VectorName,
)

__all__ = ["roll_out"]

_Request = rollout_pb2.RolloutRequest
_Floats = NDArray[np.float32]
_VECTORS: dict[int, VectorName] = {
    call_pb2.VECTOR_KIND_POOLED: "pooled",
    call_pb2.VECTOR_KIND_TOKENS: "tokens",
}


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What may be done."""

    frames: int
    """F."""
    past: _Floats | None
    """float32[(T − 1)·k, A]; None: the model reads no actions."""
    each: tuple[_Floats | None, ...]
    """K of float32[F·k, A]; a single None: the model reads no actions."""


async def roll_out(
    request: _Request, call: Call, calls: Calls, images: ImageReader
) -> rollout_pb2.RolloutResponse:
    """Answer the request.

    Raises:
        Failure: the request as a whole cannot be answered.
    """
    call.served.require(model_pb2.CAPABILITY_ROLLOUT)
    if request.decode_frames:
        call.served.require(model_pb2.CAPABILITY_DECODE_ROLLOUTS)
    # Distances are measured there, even if no latents are returned.
    call.answer_in("world_latent")
    data_type = checked_data_type(request.data_type, "data_type")
    spec = call.served.description.input.world_model
    _check_frames(request, spec)
    candidates = _candidates(request, call, spec)
    _check_answer(request, call, calls, candidates)
    pictures = {f"frames[{index}]": frame for index, frame in enumerate(request.frames)}
    if request.HasField("goal"):
        pictures["goal"] = request.goal
    count = max(len(candidates.each), len(pictures))
    with calls.admit_items(count, "candidates", call, {EmbedImages.name: len(pictures)}):
        operation = Rollout(
            candidates.frames,
            seen=len(request.frames),
            has_actions=candidates.past is not None,
            has_goal=request.HasField("goal"),
            return_latents=request.return_latents,
            decode_frames=request.decode_frames,
        )
        look = EmbedImages(_VECTORS[spec.latents])
        sequel = Sequel(operation, len(candidates.each))
        vectors = await _vectors(pictures, call, calls, images, look, sequel)
        items = _items(candidates, vectors, len(request.frames))
        outputs = await compute_items(calls, call, operation, items, "candidates")
    results = []
    for index, output in enumerate(outputs):
        if isinstance(output, Failure):
            error = item_error(output, f"candidates[{index}]")
            results.append(rollout_pb2.RolloutResult(error=error))
        else:
            rollout = _rollout(output, call, data_type)
            results.append(rollout_pb2.RolloutResult(rollout=rollout))
    return rollout_pb2.RolloutResponse(info=call.info(), results=results)


def _check_frames(request: _Request, spec: model_pb2.WorldModelInput) -> None:
    """Let pass as many frames as the model looks back on, at its interval."""
    if not request.frames:
        raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "at least one is needed", "frames")
    if len(request.frames) > spec.history:
        raise Failure(
            errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
            f"the model looks back on 1 to {spec.history} frames, found {len(request.frames)}",
            "frames",
        )
    if request.HasField("frame_interval"):
        check_interval(request.frame_interval, spec.interval, "frames", "frame_interval")


def _candidates(request: _Request, call: Call, spec: model_pb2.WorldModelInput) -> _Candidates:
    """What may be done, checked against the model.

    Raises:
        Failure: actions that are missing or not read, or of another shape or space.
    """
    if spec.actions == model_pb2.WORLD_ACTIONS_NONE:
        return _Candidates(_steps_without_actions(request, spec), None, (None,))
    if not request.HasField("candidates"):
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            "this model reads actions: give candidates, not steps",
            "candidates",
        )
    if request.steps:
        told = "must be left out: the candidates say how many frames they are for"
        raise out_of_range("steps", told)
    _check_space(request, call, spec)
    wanted = (None, None, spec.action_dimensions)
    found = read_floats(request.candidates, wanted, "candidates")
    frames, rest = divmod(found.shape[1], spec.action_steps)
    if not len(found) or rest or not 1 <= frames <= spec.max_steps:
        raise Failure(
            errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
            f"shape must be [K, F × {spec.action_steps}, {spec.action_dimensions}] with at least "
            f"one candidate and F of 1 to {spec.max_steps}, found {list(found.shape)}",
            "candidates",
        )
    return _Candidates(frames, _past(request, spec), tuple(found))


def _past(request: _Request, spec: model_pb2.WorldModelInput) -> _Floats:
    """What was done between the frames: float32[(T − 1)·k, A]."""
    between = len(request.frames) - 1
    if not between:
        if request.HasField("past_actions"):
            raise out_of_range("past_actions", "must be absent: nothing is between a single frame")
        return np.zeros((0, spec.action_dimensions), np.float32)
    if not request.HasField("past_actions"):
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            f"what was done between {between + 1} frames is needed",
            "past_actions",
        )
    shape = (between * spec.action_steps, spec.action_dimensions)
    return read_floats(request.past_actions, shape, "past_actions")


def _steps_without_actions(request: _Request, spec: model_pb2.WorldModelInput) -> int:
    if request.HasField("candidates"):
        raise out_of_range("candidates", "this model reads no actions: give steps, not candidates")
    if request.HasField("past_actions"):
        raise out_of_range("past_actions", "must be left out: this model reads no actions")
    if request.action_space_id:
        raise out_of_range("action_space_id", "must be empty: this model reads no actions")
    if not 1 <= request.steps <= spec.max_steps:
        raise out_of_range("steps", f"must be 1 to {spec.max_steps}, found {request.steps}")
    return request.steps


def _check_space(request: _Request, call: Call, spec: model_pb2.WorldModelInput) -> None:
    """Let pass latent actions of the model's own space, and real ones of none."""
    if spec.actions == model_pb2.WORLD_ACTIONS_REAL:
        if request.action_space_id:
            raise out_of_range(
                "action_space_id", "must be empty: this model reads the robot's own actions"
            )
        return
    own = call.served.space("latent_action")
    if not request.action_space_id:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            f"this model reads latent actions of space {own}",
            "action_space_id",
        )
    if request.action_space_id != own:
        raise Failure(
            errors_pb2.ERROR_REASON_SPACE_MISMATCH,
            f"the actions are of space {request.action_space_id[:40]!r}, the model's is {own!r}",
            "action_space_id",
        )


def _check_answer(request: _Request, call: Call, calls: Calls, candidates: _Candidates) -> None:
    """Refuse what could only be answered in a message larger than any may be."""
    image, world = call.served.description.input.image, call.served.description.input.world_model
    numbers = world.latent_count * call.served.describe("world_latent").dimensions
    each = 4 * numbers * request.return_latents + 3 * image.size**2 * request.decode_frames
    total = len(candidates.each) * candidates.frames * each
    if total > calls.settings.max_message_bytes:
        raise Failure(
            errors_pb2.ERROR_REASON_TOO_MANY_ITEMS,
            f"{len(candidates.each)} × {candidates.frames} predicted frames would take {total} "
            f"bytes, at most {calls.settings.max_message_bytes} are allowed",
            "candidates",
        )


async def _vectors(
    pictures: Mapping[str, image_pb2.Image],
    call: Call,
    calls: Calls,
    images: ImageReader,
    look: EmbedImages,
    sequel: Sequel,
) -> list[_Floats]:
    """What the trunk says of each picture, float32[D] or [N, D].

    Raises:
        Failure: one of them cannot be read, and nothing can be predicted without it; or what
            follows could not be in time.
    """
    read: list[Item] = []
    for pixels in await images.read_all(pictures, call):
        if isinstance(pixels, Failure):
            raise pixels
        read.append(Item((pixels,)))
    vectors = []
    outputs = await run_items(calls, call, look, read, sequel)
    for field, output in zip(pictures, outputs, strict=True):
        if isinstance(output, ItemFailure):
            raise item_failure(output, field)
        vectors.append(output.arrays[0])
    return vectors


def _items(candidates: _Candidates, vectors: Sequence[_Floats], seen: int) -> list[Item]:
    """One for each candidate; what they share is one array."""
    history, goal = np.stack(vectors[:seen]), vectors[seen:]
    before: tuple[NDArray[Any], ...] = (history,)
    if candidates.past is not None:
        before = (history, candidates.past)
    return [
        Item((*before, *(() if actions is None else (actions,)), *goal))
        for actions in candidates.each
    ]


def _rollout(output: ItemOutput, call: Call, data_type: int) -> rollout_pb2.Rollout:
    latents, distances, frames = output.arrays
    answer = rollout_pb2.Rollout(frames=[raw_image(frame) for frame in frames])
    if latents.size:
        space = call.served.space("world_latent")
        answer.latents.CopyFrom(embedding(latents, space, data_type))
    if distances.size:
        answer.goal_distances.CopyFrom(tensor(distances))
    return answer
