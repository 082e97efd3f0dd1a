"""Reconstruct: each kind of target read, computed and answered."""

from __future__ import annotations

import numpy as np

from tectum.v1 import errors_pb2, model_pb2, reconstruct_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.messages.wire import (
    check_interval,
    out_of_range,
    raw_image,
    read_floats,
    read_mask,
    tensor,
)
from tectum_server.worker.front.methods.batches import compute_one
from tectum_server.worker.front.methods.clips import read_clip
from tectum_server.worker.front.methods.texts import checked_text
from tectum_server.worker.jobs import FillActions, FillClip, FillImage, FillText, Item, MaskSpec

__all__ = ["reconstruct"]

_DEFAULT_TOP_K, _MAX_TOP_K = 5, 20
_Request = reconstruct_pb2.ReconstructRequest
_Response = reconstruct_pb2.ReconstructResponse


async def reconstruct(
    request: _Request, call: Call, calls: Calls, images: ImageReader
) -> _Response:
    """Answer the request.

    Raises:
        Failure: it cannot be answered.
    """
    call.answer_in()  # no vectors, so no space a caller could expect
    target = request.WhichOneof("target")
    found = _WORK.get(target or "")
    if found is None:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_MISSING,
            "image, clip, text or actions must be set",
            "target",
        )
    _refuse_foreign_conditions(request, target or "")
    operation, work = found
    with calls.book(1, call, {operation: 1}):
        return await work(request, call, calls, images)


async def _image(request: _Request, call: Call, calls: Calls, images: ImageReader) -> _Response:
    call.served.require(model_pb2.CAPABILITY_RECONSTRUCT_IMAGES)
    text = _condition_text(request, calls)
    spec = call.served.description.input.image
    operation = FillImage(read_mask(request.mask, (spec.size // spec.patch_size) ** 2))
    pixels = await images.read(request.image, call, "image")
    output = await compute_one(calls, call, operation, Item((pixels,), text))
    seen, filled, mask, error = output.arrays
    grid = round(len(mask) ** 0.5)
    return _Response(
        info=call.info(),
        image=reconstruct_pb2.ImageReconstruction(
            input=raw_image(seen[0]),
            reconstruction=raw_image(filled[0]),
            mask=tensor(mask.reshape(grid, grid)),
            element_error=tensor(error.reshape(grid, grid)),
        ),
    )


async def _clip(request: _Request, call: Call, calls: Calls, images: ImageReader) -> _Response:
    call.served.require(model_pb2.CAPABILITY_RECONSTRUCT_CLIPS)
    spec = call.served.description.input
    steps = spec.clip.frames // spec.clip.tubelet_frames
    tubelets = steps * (spec.image.size // spec.clip.patch_size) ** 2
    operation = FillClip(read_mask(request.mask, tubelets))
    frames = await read_clip(request.clip, call, images, "clip")
    output = await compute_one(calls, call, operation, Item((frames,)))
    seen, filled, mask, error = output.arrays
    grid = round((len(mask) // steps) ** 0.5)
    return _Response(
        info=call.info(),
        clip=reconstruct_pb2.ClipReconstruction(
            input=[raw_image(frame) for frame in seen],
            reconstruction=[raw_image(frame) for frame in filled],
            mask=tensor(mask.reshape(steps, grid, grid)),
            element_error=tensor(error.reshape(steps, grid, grid)),
        ),
    )


async def _text(request: _Request, call: Call, calls: Calls, images: ImageReader) -> _Response:
    call.served.require(model_pb2.CAPABILITY_RECONSTRUCT_TEXTS)
    if request.top_k > _MAX_TOP_K:
        raise out_of_range("top_k", f"at most {_MAX_TOP_K}, found {request.top_k}")
    text = checked_text(request.text.text, calls.settings.max_text_bytes, "text.text")
    most = call.served.description.input.text.max_tokens
    mask: MaskSpec | None = read_mask(request.mask, most)
    arrays: tuple[np.ndarray, ...] = ()
    if request.HasField("image_condition"):
        pixels = await images.read(request.image_condition, call, "image_condition")
        arrays = (pixels,)
    if not request.HasField("mask") and "[MASK]" in text:
        mask = None
    operation = FillText(mask, request.top_k or _DEFAULT_TOP_K)
    output = await compute_one(calls, call, operation, Item(arrays, text))
    return _Response(
        info=call.info(),
        text=reconstruct_pb2.TextReconstruction(
            text=output.text,
            tokens=[
                reconstruct_pb2.TokenReconstruction(
                    token=token.token,
                    hidden=token.hidden,
                    candidates=[
                        reconstruct_pb2.TokenCandidate(token=name, probability=probability)
                        for name, probability in token.candidates
                    ],
                    error=token.error,
                )
                for token in output.tokens
            ],
        ),
    )


async def _actions(request: _Request, call: Call, calls: Calls, images: ImageReader) -> _Response:
    call.served.require(model_pb2.CAPABILITY_RECONSTRUCT_ACTIONS)
    spec = call.served.description.input.actions
    actions = read_floats(request.actions.actions, (None, len(spec.names)), "actions.actions")
    if not 2 <= len(actions) <= spec.max_steps:
        raise Failure(
            errors_pb2.ERROR_REASON_SHAPE_MISMATCH,
            f"2 to {spec.max_steps} steps, found {len(actions)}",
            "actions.actions",
        )
    if request.actions.HasField("step_interval"):
        sent = request.actions.step_interval
        check_interval(sent, spec.step_interval, "steps", "actions.step_interval")
    mask = read_mask(request.mask, len(actions))
    arrays: list[np.ndarray] = [actions]
    has_state = request.HasField("state_condition")
    if has_state:
        if not spec.state_names:
            raise Failure(
                errors_pb2.ERROR_REASON_CAPABILITY_MISSING,
                "this model takes no state",
                "state_condition",
            )
        shape = (len(spec.state_names),)
        arrays.append(read_floats(request.state_condition, shape, "state_condition"))
    has_image = request.HasField("image_condition")
    if has_image:
        pixels = await images.read(request.image_condition, call, "image_condition")
        arrays.append(pixels)
    operation = FillActions(mask, has_state, has_image)
    item = Item(tuple(arrays), _condition_text(request, calls))
    output = await compute_one(calls, call, operation, item)
    filled, hidden, error = output.arrays
    return _Response(
        info=call.info(),
        actions=reconstruct_pb2.ActionReconstruction(
            actions=tensor(filled), mask=tensor(hidden), element_error=tensor(error)
        ),
    )


def _condition_text(request: _Request, calls: Calls) -> str:
    if not request.text_condition:
        return ""
    return checked_text(request.text_condition, calls.settings.max_text_bytes, "text_condition")


_CONDITIONS = {
    "text_condition": ("image", "actions"),
    "image_condition": ("text", "actions"),
    "state_condition": ("actions",),
}


def _refuse_foreign_conditions(request: _Request, target: str) -> None:
    """A condition that the target cannot use is a mistake, not something to overlook."""
    for condition, targets in _CONDITIONS.items():
        given = (
            bool(request.text_condition)
            if condition == "text_condition"
            else request.HasField(condition)  # type: ignore[arg-type]
        )
        if given and target not in targets:
            raise out_of_range(condition, f"is for {' and '.join(targets)}, not for {target}")


_WORK = {
    "image": (FillImage.name, _image),
    "clip": (FillClip.name, _clip),
    "text": (FillText.name, _text),
    "actions": (FillActions.name, _actions),
}
"""By target: what the engine is asked for, and who answers."""
