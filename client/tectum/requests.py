"""From Python values to the contract's request messages, checked at the door.

Every rule of the contract that needs no model to judge is judged here, so that a mistake costs
no round trip and names its field. Pure: no channel, no clock, no defaults of a client.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike, NDArray

from tectum import images, tensors, vocabulary
from tectum.durations import duration, timestamp
from tectum.errors import TooLarge, Violation, invalid
from tectum.images import ClipLike, ImageLike, describe, put_image, put_images
from tectum.inputs import Mask
from tectum.results import Embedding
from tectum.v1 import (
    call_pb2,
    embed_pb2,
    image_pb2,
    latent_action_pb2,
    reconstruct_pb2,
    rollout_pb2,
    tensor_pb2,
)
from tectum.vocabulary import (
    ImportanceSourceName,
    MaskKindName,
    VectorKindName,
    VectorTypeName,
)

# T frames or steps, A action dimensions, S state dimensions, K candidates

MAX_LIFESPAN = 60.0
"""Seconds a frame may stay useful (StreamSetup.lifespan)."""
MAX_DEPTH = 16
"""Frames of a stream that may wait (StreamSetup.depth)."""
MAX_TOP_K = 20
"""Candidates for a hidden token (ReconstructRequest.top_k)."""

_COMPARABLE = f"{images.ALLOWED}, a str, or an Embedding"

_KINDS = vocabulary.numbers(call_pb2.VectorKind.DESCRIPTOR)
_TYPES = vocabulary.numbers(tensor_pb2.DataType.DESCRIPTOR)
_MASKS = vocabulary.numbers(reconstruct_pb2.MaskKind.DESCRIPTOR)
_SOURCES = vocabulary.numbers(reconstruct_pb2.ImportanceSource.DESCRIPTOR)

SMALLER = "send fewer or smaller items at once, or encode pictures as JPEG or PNG"
"""What helps against a message that is too large."""

SimilarityItem = ImageLike | str | Embedding
"""One side's member in a comparison: a picture, a text, or a vector already in hand."""


def text(value: str, field: str, *, empty: bool = False) -> str:
    """A text the wire can carry: not empty unless `empty`, no NUL, valid Unicode."""
    if not isinstance(value, str):
        raise invalid(field, f"found {describe(value)}; allowed: str")
    if not (value or empty):
        raise invalid(field, "found an empty text; allowed: text", reason="FIELD_MISSING")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise invalid(field, "found NUL or half a surrogate pair; allowed: Unicode text")
    return value


def lifespan(value: float) -> float:
    """Seconds that a frame may stay useful."""
    if not value <= MAX_LIFESPAN:
        raise invalid("lifespan", f"found {value!r} s; allowed: above 0, at most {MAX_LIFESPAN} s")
    return value


def depth(value: int) -> int:
    """How many frames of a stream may wait."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DEPTH:
        raise invalid("depth", f"found {value!r:.60}; allowed: 1 to {MAX_DEPTH}")
    return value


def check_size(request: Message, allowed: int, parts: Message | None = None) -> None:
    """Refuse a request that the transport would not carry, and name what is large in it.

    Args:
        request: All of it.
        allowed: Bytes of a message.
        parts: Of which message in it to name the largest field. None: of itself.

    Raises:
        TooLarge: it has more.
    """
    found = request.ByteSize()
    if found <= allowed:
        return
    fields = (request if parts is None else parts).ListFields()
    field = max(fields, key=lambda member: _size(member[1]))[0].name
    description = f"found a message of {found} bytes; allowed: at most {allowed}; {SMALLER}"
    raise TooLarge(
        f"{field}: {description}",
        reason="MESSAGE_TOO_LARGE",
        violations=[Violation(field, description)],
    )


def vector_options(
    kind: str | None, dtype: str, dimensions: int | None = None
) -> call_pb2.VectorOptions:
    """How vectors shall come back."""
    options = call_pb2.VectorOptions(data_type=data_type(dtype))
    if kind is not None:
        options.kind = call_pb2.VectorKind.ValueType(
            _choice(kind, "kind", get_args(VectorKindName), _KINDS)
        )
    if dimensions is not None:
        if not 0 < dimensions < 2**32:
            raise invalid("dimensions", f"found {dimensions}; allowed: at least 1, or None for all")
        options.dimensions = dimensions
    return options


def data_type(name: str) -> tensor_pb2.DataType.ValueType:
    """The element type that vectors shall travel in."""
    return tensor_pb2.DataType.ValueType(_choice(name, "dtype", get_args(VectorTypeName), _TYPES))


def embed_images(pictures: Iterable[ImageLike]) -> embed_pb2.EmbedImagesRequest:
    """Pictures to turn into vectors."""
    request = embed_pb2.EmbedImagesRequest()
    put_images(request.images.add, pictures, "images")
    return request


def embed_texts(texts: Iterable[str]) -> embed_pb2.EmbedTextsRequest:
    """Texts to turn into vectors."""
    if isinstance(texts, str):
        raise invalid("texts", "found one str; allowed: a list of them")
    checked = [text(value, f"texts[{i}]") for i, value in enumerate(texts)]
    if not checked:
        raise invalid("texts", "found none; allowed: at least one text", reason="FIELD_MISSING")
    return embed_pb2.EmbedTextsRequest(texts=checked)


def put_clip(
    target: image_pb2.Clip, frames: ClipLike, frame_interval: float | None, field: str
) -> None:
    """Write a short video; the interval in seconds, None to assert the model's own."""
    put_images(target.frames.add, frames, f"{field}.frames")
    if frame_interval is not None:
        target.frame_interval.CopyFrom(duration(frame_interval, "frame_interval"))


def embed_clips(
    clips: Iterable[ClipLike], frame_interval: float | None
) -> embed_pb2.EmbedClipsRequest:
    """Clips to turn into vectors."""
    request = embed_pb2.EmbedClipsRequest()
    for i, frames in enumerate(clips):
        put_clip(request.clips.add(), frames, frame_interval, f"clips[{i}]")
    if not request.clips:
        raise invalid("clips", "found none; allowed: at least one clip", reason="FIELD_MISSING")
    return request


def compute_similarity(
    left: Iterable[SimilarityItem], right: Iterable[SimilarityItem]
) -> embed_pb2.ComputeSimilarityRequest:
    """Two lists to compare, each with each."""
    request = embed_pb2.ComputeSimilarityRequest()
    _put_side(request.left.add, left, "left")
    _put_side(request.right.add, right, "right")
    return request


def mask(value: Mask) -> reconstruct_pb2.Mask:
    """What to hide."""
    message = reconstruct_pb2.Mask(hidden=_indices(value.hidden))
    if value.kind is not None:
        kind = _choice(value.kind, "mask.kind", get_args(MaskKindName), _MASKS)
        message.kind = reconstruct_pb2.MaskKind.ValueType(kind)
    explicit = value.kind == "explicit" or (value.kind is None and len(value.hidden) > 0)
    if explicit != (len(value.hidden) > 0):
        found = f"found {len(value.hidden) or 'no'} indices with kind {value.kind}"
        raise invalid("mask.hidden", f"{found}; allowed: indices with kind explicit, and only it")
    if value.ratio is not None:
        if explicit or not (math.isfinite(value.ratio) and 0 < value.ratio < 1):
            allowed = "none with hidden indices" if explicit else "above 0 and below 1"
            raise invalid("mask.ratio", f"found {value.ratio!r}; allowed: {allowed}")
        message.ratio = value.ratio
    if value.seed is not None:
        if not 0 <= value.seed < 2**64:
            raise invalid("mask.seed", f"found {value.seed}; allowed: 0 to 2**64 − 1")
        message.seed = value.seed
    for name, given in (("source", value.source), ("hint", value.hint)):
        if given is not None and value.kind != "importance":
            raise invalid(f"mask.{name}", f"found {given!r}; allowed: none but with importance")
    if value.source is not None:
        source = _choice(value.source, "mask.source", get_args(ImportanceSourceName), _SOURCES)
        message.source = reconstruct_pb2.ImportanceSource.ValueType(source)
    if value.hint is not None:
        if not 0 <= value.hint <= 1:
            raise invalid("mask.hint", f"found {value.hint!r}; allowed: 0 to 1")
        message.hint = value.hint
    return message


def reconstruct(hide: Mask | None) -> reconstruct_pb2.ReconstructRequest:
    """The part that every reconstruction shares; the caller adds its target."""
    return reconstruct_pb2.ReconstructRequest(mask=None if hide is None else mask(hide))


def candidates(top_k: int) -> int:
    """How many guesses to list for each hidden token."""
    if not 1 <= top_k <= MAX_TOP_K:
        raise invalid("top_k", f"found {top_k}; allowed: 1 to {MAX_TOP_K}")
    return top_k


def numbers(value: ArrayLike, field: str, axes: str) -> tensor_pb2.Tensor:
    """A real array as float32, its axes named for the error: `T, A`."""
    array: NDArray[np.generic] = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.ndim != axes.count(",") + 1 or array.size == 0:
        found = describe(array)
        raise invalid(field, f"found {found}; allowed: float[{axes}]", reason="SHAPE_MISMATCH")
    # A float64 beyond float32's range becomes infinite here, and is refused as such.
    with np.errstate(over="ignore"):
        return tensors.to_wire(array.astype(np.float32), field)


def predict_latent_actions(
    frames: ClipLike, captured_at: Sequence[float] | None, interval: float | None
) -> latent_action_pb2.PredictLatentActionsRequest:
    """Frames in the order they were taken, with their times or one interval asserted for all."""
    request = latent_action_pb2.PredictLatentActionsRequest()
    count = put_images(lambda: request.frames.add().image, frames, "frames")
    if count < 2:
        raise invalid("frames", "found 1; allowed: at least 2", reason="FIELD_MISSING")
    if (captured_at is None) == (interval is None):
        reason = "FIELD_MISSING" if interval is None else "FIELD_OUT_OF_RANGE"
        found = f"found {'neither' if interval is None else 'both'}"
        allowed = "allowed: exactly one of captured_at and interval"
        raise invalid("interval", f"{found}; {allowed}", reason=reason)
    if interval is not None:
        request.interval.CopyFrom(duration(interval, "interval"))
    if captured_at is not None:
        _put_times(request, captured_at)
    return request


def rollout(
    frames: ClipLike,
    past_actions: ArrayLike | None,
    candidates: ArrayLike | None,
    steps: int | None,
    frame_interval: float | None,
) -> rollout_pb2.RolloutRequest:
    """Frames that were seen, what was done between them, and what may be done next."""
    request = rollout_pb2.RolloutRequest()
    count = put_images(request.frames.add, frames, "frames")
    if frame_interval is not None:
        request.frame_interval.CopyFrom(duration(frame_interval, "frame_interval"))
    if (candidates is None) == (steps is None):
        reason = "FIELD_MISSING" if steps is None else "FIELD_OUT_OF_RANGE"
        found = f"found {'neither' if steps is None else 'both'}"
        allowed = "allowed: exactly one of candidates and steps"
        raise invalid("candidates", f"{found}; {allowed}", reason=reason)
    if steps is not None:
        if not 0 < steps < 2**32:
            raise invalid("steps", f"found {steps}; allowed: at least 1")
        request.steps = steps
    needed = candidates is not None and count > 1
    if needed and past_actions is None:
        found = f"found none for {count} frames; allowed: what was done between them"
        raise invalid("past_actions", found, reason="FIELD_MISSING")
    if past_actions is not None and not needed:
        allowed = "allowed: none without candidates, or with a single frame"
        raise invalid("past_actions", f"found some; {allowed}")
    if past_actions is not None:
        request.past_actions.CopyFrom(numbers(past_actions, "past_actions", "T, A"))
    if candidates is not None:
        request.candidates.CopyFrom(numbers(candidates, "candidates", "K, T, A"))
    return request


def _put_times(
    request: latent_action_pb2.PredictLatentActionsRequest, captured_at: Sequence[float]
) -> None:
    if len(captured_at) != len(request.frames):
        found = f"found {len(captured_at)} times for {len(request.frames)} frames"
        raise invalid("captured_at", f"{found}; allowed: one each", reason="SHAPE_MISMATCH")
    for i, frame in enumerate(request.frames):
        frame.captured_at.CopyFrom(timestamp(captured_at[i], f"captured_at[{i}]"))
        if i > 0 and captured_at[i] <= captured_at[i - 1]:
            found = f"found {captured_at[i]!r} after {captured_at[i - 1]!r}"
            description = f"{found}; allowed: later than the frame before"
            raise invalid(f"captured_at[{i}]", description, reason="INTERVAL_MISMATCH")


def _size(value: Any) -> int:
    """About how many bytes a field's value takes; a number is small whatever it is."""
    if isinstance(value, Message):
        return value.ByteSize()
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, Iterable) else 1


def _choice(value: str, field: str, allowed: Sequence[str], wire: Mapping[str, int]) -> int:
    if value not in allowed:
        raise invalid(field, f"found {value!r}; allowed: {', '.join(allowed)}")
    return wire[value]


def _indices(hidden: Sequence[int]) -> list[int]:
    indices = [int(index) for index in hidden]
    known = set[int]()
    for index in indices:
        if index in known or not 0 <= index < 2**32:
            found = f"found {index}{' twice' if index in known else ''}"
            raise invalid("mask.hidden", f"{found}; allowed: indices from 0, none twice")
        known.add(index)
    return indices


def _put_side(
    add: Callable[[], embed_pb2.SimilarityItem], items: Iterable[SimilarityItem], field: str
) -> None:
    if isinstance(items, str | bytes | Embedding) or (
        isinstance(items, np.ndarray) and items.ndim != 4
    ):
        raise invalid(field, f"found one {describe(items)}; allowed: a list of items")
    count = 0
    for item in items:
        _put_item(add(), item, f"{field}[{count}]")
        count += 1
    if count == 0:
        raise invalid(field, "found none; allowed: at least one item", reason="FIELD_MISSING")


def _put_item(target: embed_pb2.SimilarityItem, item: object, field: str) -> None:
    if isinstance(item, str):
        target.text = text(item, field)
    elif isinstance(item, Embedding):
        target.embedding.values.CopyFrom(tensors.to_wire(item.values, field))
        target.embedding.space_id = text(item.space_id, f"{field}.space_id")
        if item.scale is not None:
            target.embedding.scale = item.scale
    elif isinstance(item, np.ndarray | bytes | bytearray | memoryview | os.PathLike):
        put_image(target.image, item, field, _COMPARABLE)
    else:
        found = f"found {describe(item)}; allowed: {_COMPARABLE}"
        raise invalid(field, found, reason="SHAPE_MISMATCH")
