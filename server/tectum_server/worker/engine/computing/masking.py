"""From a request's mask to the elements it hides, for each kind of target.

Draws come from `tectum_core.masks`; this room knows which kinds a target allows and
what the model's own ratio is. Equal seeds hide equal elements, whatever else is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tectum.v1 import errors_pb2
from tectum_core import masks
from tectum_core.predictor import Predictor
from tectum_core.tokenizer import EncodedText
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    FillActions,
    FillClip,
    FillImage,
    FillText,
    Item,
    MaskSpec,
    Operation,
)

__all__ = ["check_mask", "clip_masks", "image_masks", "scored_by", "step_mask", "token_mask"]


def check_mask(predictor: Predictor, operation: Operation, item: Item) -> None:
    """Refuse a mask that its target does not allow, before the item joins a batch.

    Of a text only the kind is looked at: its tokens are counted where it is computed.

    Raises:
        Failure: FIELD_OUT_OF_RANGE, a kind or a source that is not for this target, or listed
            elements that are not there, twice, none or all.
    """
    match operation:
        case FillImage(mask=spec) if spec.kind in ("explicit", "tube") or spec.source == "change":
            _image_mask(predictor, spec)  # no other is refused
        case FillClip(mask=spec) if spec.kind == "explicit":
            _clip_mask(predictor, spec)
        case FillActions(mask=spec):
            step_mask(predictor, spec, item.arrays[0].shape[0])
        case FillText(mask=MaskSpec(kind="block" | "importance" | "tube" as kind)):
            raise _not_for(kind, "a text", "random or explicit")


def scored_by(spec: MaskSpec) -> str:
    """What says how much elements matter, for a mask that goes by that; else empty."""
    return spec.source if spec.kind == "importance" else ""


def image_masks(
    predictor: Predictor, specs: Sequence[MaskSpec], images: Sequence[NDArray[np.uint8]]
) -> Tensor:
    """bool[B, N] over images' patches, by masks that are scored alike: in one pass, if at all."""
    if scored_by(specs[0]) == "attention":
        scores: Sequence[NDArray[np.float32] | None] = list(predictor.image_importance(images))
    else:
        scores = [None] * len(specs)
    masks = [_image_mask(predictor, s, own) for s, own in zip(specs, scores, strict=True)]
    return torch.stack(masks)


def clip_masks(
    predictor: Predictor, specs: Sequence[MaskSpec], clips: Sequence[NDArray[np.uint8]]
) -> Tensor:
    """bool[B, N] over clips' tubelets, as `image_masks`.

    Raises:
        Failure: CAPABILITY_MISSING.
    """
    match scored_by(specs[0]):
        case "attention":
            scores: Sequence[NDArray[np.float32] | None] = list(predictor.clip_importance(clips))
        case "change":
            scores = list(predictor.clip_change(clips))
        case _:
            scores = [None] * len(specs)
    masks = [_clip_mask(predictor, s, own) for s, own in zip(specs, scores, strict=True)]
    return torch.stack(masks)


def _image_mask(
    predictor: Predictor, spec: MaskSpec, scores: NDArray[np.float32] | None = None
) -> Tensor:
    """bool[N] over an image's patches, by float32[N] where it goes by what matters."""
    vision, decoder = predictor.config.model.vision, predictor.config.model.pixel_decoder
    ratio = spec.ratio or (decoder.mask_ratio if decoder else 0.75)
    match spec.kind:
        case "random":
            return masks.random_mask(vision.patches, ratio, _generator(spec))
        case "block":
            return masks.block_mask(vision.grid, vision.grid, ratio, _generator(spec))
        case "importance":
            if spec.source == "change":
                raise Failure(
                    errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
                    "one image says nothing of what changes; a mask by change needs a clip",
                    "mask.source",
                )
            return _important(scores, ratio, spec)
        case "explicit":
            return _explicit(spec, vision.patches, "patches")
        case "tube":
            raise _not_for("tube", "an image", "random, block, importance or explicit")


def _clip_mask(
    predictor: Predictor, spec: MaskSpec, scores: NDArray[np.float32] | None = None
) -> Tensor:
    """bool[N] over a clip's tubelets, by float32[N] where it goes by what matters."""
    video, decoder = predictor.config.model.video, predictor.config.model.video_decoder
    if video is None:
        raise Failure(errors_pb2.ERROR_REASON_CAPABILITY_MISSING, "this model has no video path")
    ratio = spec.ratio or (decoder.mask_ratio if decoder else 0.9)
    match spec.kind:
        case "random":
            return masks.random_mask(video.patches, ratio, _generator(spec))
        case "block":
            frame = masks.block_mask(video.grid, video.grid, ratio, _generator(spec))
            return masks.tube_mask(video.steps, frame)
        case "tube":
            frame = masks.random_mask(video.grid**2, ratio, _generator(spec))
            return masks.tube_mask(video.steps, frame)
        case "importance":
            return _important(scores, ratio, spec)
        case "explicit":
            return _explicit(spec, video.patches, "tubelets")


def step_mask(predictor: Predictor, spec: MaskSpec, steps: int) -> Tensor:
    """bool[T] over an action sequence's steps."""
    actions = predictor.config.model.actions
    ratio = spec.ratio or (actions.mask_ratio if actions else 0.5)
    match spec.kind:
        case "random":
            return masks.random_mask(steps, ratio, _generator(spec))
        case "block":
            return masks.span_mask(steps, ratio, _generator(spec))
        case "explicit":
            return _explicit(spec, steps, "steps")
        case "importance" | "tube":
            raise _not_for(spec.kind, "an action sequence", "random, block or explicit")


def token_mask(predictor: Predictor, spec: MaskSpec | None, text: EncodedText) -> frozenset[int]:
    """Places in the text's ids that are hidden, those written as [MASK] included.

    Args:
        predictor: whose tokenizer made the ids.
        spec: what else to hide; None: nothing, for there is a [MASK] in the text.
        text: as the model reads it.

    Raises:
        Failure: nothing of it can be hidden, or not so.
    """
    tokenizer, fusion = predictor.bundle.tokenizer, predictor.config.model.fusion
    mask_id = tokenizer.mask_id if tokenizer else None
    written = frozenset(place for place in text.content if text.ids[place] == mask_id)
    count = len(text.content)
    if spec is None and written:
        return written
    if spec is None and text.cut:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
            f"the model reads {count} tokens of this text, and no [MASK] is among them",
            "text.text",
        )
    spec = spec or MaskSpec()
    if count < 2:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
            f"masking needs at least 2 tokens, the text has {count}",
            "text.text",
        )
    ratio = spec.ratio or (fusion.text_mask_ratio if fusion else 0.15)
    match spec.kind:
        case "random":
            hidden = masks.random_mask(count, ratio, _generator(spec))
        case "explicit":
            hidden = _explicit(spec, count, "tokens")
        case "block" | "importance" | "tube":
            raise _not_for(spec.kind, "a text", "random or explicit")
    return written | {text.content[int(i)] for i in hidden.nonzero().flatten()}


def _important(scores: NDArray[np.float32] | None, ratio: float, spec: MaskSpec) -> Tensor:
    if scores is None:
        raise TypeError("what goes by what matters is scored first")
    return masks.hinted_mask(torch.from_numpy(scores), ratio, spec.hint, _generator(spec))


def _explicit(spec: MaskSpec, elements: int, what: str) -> Tensor:
    try:
        return masks.explicit_mask(spec.hidden, elements)
    except ValueError as error:
        raise Failure(
            errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE, f"{error} ({what})", "mask.hidden"
        ) from error


def _not_for(kind: str, target: str, allowed: str) -> Failure:
    return Failure(
        errors_pb2.ERROR_REASON_FIELD_OUT_OF_RANGE,
        f"found {kind}; allowed for {target}: {allowed}",
        "mask.kind",
    )


def _generator(spec: MaskSpec) -> Generator:
    return Generator().manual_seed(spec.seed)
