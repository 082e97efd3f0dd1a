"""What each operation means to the predictor: which items share a batch, and how a batch runs.

One function an operation, all of one shape: a predictor and items in, an output for
each item. What can be seen to be wrong with an item's mask is refused with its key, before
it joins others. Knows no queues and no wire.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from tectum.v1 import errors_pb2
from tectum_core.launching import Flight
from tectum_core.masks import hidden_count
from tectum_core.model.vision import VisionTransformer
from tectum_core.outputs import Float32
from tectum_core.predictor import Predictor
from tectum_core.rollouts import RolloutRequest
from tectum_core.tokenizer import EncodedText
from tectum_server.worker.engine.computing.finite import if_finite
from tectum_server.worker.engine.computing.masking import (
    check_mask,
    clip_masks,
    image_masks,
    scored_by,
    step_mask,
    token_mask,
)
from tectum_server.worker.engine.policy.cost import Length, Trifle
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedClips,
    EmbedImages,
    EmbedTexts,
    FillActions,
    FillClip,
    FilledToken,
    FillImage,
    FillText,
    Item,
    ItemOutput,
    LatentActions,
    Operation,
    Rollout,
    empty,
)

__all__ = ["batch_key", "launch_batch", "run_batch"]


def batch_key(model: str, operation: Operation, item: Item, predictor: Predictor) -> Hashable:
    """Items with equal keys may run together: same model, same operation, same shapes inside.

    Raises:
        Failure: CAPABILITY_MISSING, the model has no such part; or as `check_mask`.
    """
    key = (model, operation.name, *_shape(operation, item, predictor))
    check_mask(predictor, operation, item)
    return key


def _shape(operation: Operation, item: Item, predictor: Predictor) -> tuple[Hashable, ...]:
    """What must be equal among an operation's items that run together."""
    match operation:
        case EmbedImages() | EmbedClips():
            return (operation.vector,)
        case EmbedTexts():
            return ()
        case FillImage():
            hidden = _hidden(predictor.model.vision, operation, predictor)
            return (Length(hidden), scored_by(operation.mask), bool(item.text))
        case FillClip():
            video = predictor.model.video
            if video is None:
                raise Failure(
                    errors_pb2.ERROR_REASON_CAPABILITY_MISSING, "this model has no video path"
                )
            return (Length(_hidden(video, operation, predictor)), scored_by(operation.mask))
        case FillText():
            return (bool(item.arrays), Trifle(operation.top_k))
        case FillActions():
            flags = (operation.has_state, operation.has_image, bool(item.text))
            return (*flags, Length(item.arrays[0].shape[0]))
        case LatentActions():
            return (operation.decode_actions, operation.predict_frame)
        case Rollout():
            asked = (Trifle(operation.has_goal), Trifle(operation.return_latents))
            seen = Trifle(operation.seen)  # looking back on less takes no longer
            return (Length(operation.frames), seen, *asked, operation.decode_frames)


def run_batch(
    predictor: Predictor, batch: Sequence[tuple[Operation, Item]]
) -> Sequence[ItemOutput | Failure]:
    """Run items of equal keys together; for each, in order, its output or why it has none.

    Raises:
        Failure: items cannot be computed; the caller finds out which by running fewer.
    """
    return _all_told(batch, _computed(predictor, batch))


def launch_batch(
    predictor: Predictor, batch: Sequence[tuple[Operation, Item]]
) -> Callable[[], Sequence[ItemOutput | Failure]] | None:
    """Begin items of equal keys together on a device, and do not wait for it.

    Returns:
        What waits, and gives what `run_batch` does; it has to be called. None: these are for that.
    """
    lane, texts = predictor.lane, list[EncodedText]()
    if lane is None:
        return None
    items = [item for _, item in batch]
    match batch[0][0]:
        case EmbedImages(vector=vector):
            flight = lane.images([item.arrays[0] for item in items], vector)
        case EmbedClips(vector=vector):
            flight = lane.clips([item.arrays[0] for item in items], vector)
        case EmbedTexts():
            texts = [predictor.encode(item.text) for item in items]
            flight = lane.texts(texts)
        case _:
            return None
    return None if flight is None else partial(_fetched, batch, flight, texts)


def _fetched(
    batch: Sequence[tuple[Operation, Item]], flight: Flight, texts: Sequence[EncodedText]
) -> Sequence[ItemOutput | Failure]:
    """What goes out of a batch that was launched."""
    vectors = flight.result()
    return _all_told(batch, _text_rows(vectors, texts) if texts else _rows(vectors))


def _all_told(
    batch: Sequence[tuple[Operation, Item]], outputs: Sequence[ItemOutput | Failure]
) -> Sequence[ItemOutput | Failure]:
    """What goes out of a batch."""
    return [
        output if isinstance(output, Failure) else _told(operation, output)
        for (operation, _), output in zip(batch, outputs, strict=True)
    ]


def _told(operation: Operation, output: ItemOutput) -> ItemOutput | Failure:
    """What goes out of what was computed: numbers, and of a rollout no more than was asked for."""
    sound = if_finite(operation, output)
    if isinstance(sound, Failure) or not isinstance(operation, Rollout):
        return sound
    latents, *rest = sound.arrays
    return ItemOutput((latents if operation.return_latents else empty(), *rest))


def _computed(
    predictor: Predictor, batch: Sequence[tuple[Operation, Item]]
) -> Sequence[ItemOutput | Failure]:
    """As `run_batch`, whatever the numbers are; of a rollout the latents in any case."""
    items = [item for _, item in batch]
    match batch[0][0]:
        case EmbedImages(vector=vector):
            return _rows(predictor.embed_images([item.arrays[0] for item in items], vector))
        case EmbedClips(vector=vector):
            return _rows(predictor.embed_clips([item.arrays[0] for item in items], vector))
        case EmbedTexts():
            texts = [predictor.encode(item.text) for item in items]
            return _text_rows(predictor.embed_encoded(texts), texts)
        case FillImage() | FillClip():
            return _fill_pictures(predictor, batch)
        case FillText():
            return _fill_texts(predictor, batch)
        case FillActions():
            return _fill_actions(predictor, batch)
        case LatentActions() as operation:
            return _latent_actions(predictor, operation, items)
        case Rollout() as rollout:
            return _rollouts(predictor, rollout, items)


def _rows(vectors: Float32) -> list[ItemOutput]:
    return [ItemOutput((row,)) for row in vectors]


def _text_rows(vectors: Float32, texts: Sequence[EncodedText]) -> list[ItemOutput]:
    return [
        ItemOutput((row, np.array([len(text.ids), text.cut], np.int64)))
        for row, text in zip(vectors, texts, strict=True)
    ]


def _hidden(trunk: VisionTransformer, operation: FillImage | FillClip, predictor: Predictor) -> int:
    """How many patches the operation hides."""
    if operation.mask.kind == "explicit":
        return len(operation.mask.hidden)
    decoder = (
        predictor.model.pixel_decoder
        if isinstance(operation, FillImage)
        else predictor.model.video_decoder
    )
    if decoder is None:
        raise Failure(
            errors_pb2.ERROR_REASON_CAPABILITY_MISSING, "this model reconstructs no such input"
        )
    ratio = operation.mask.ratio or decoder.config.mask_ratio
    if operation.mask.kind in ("tube", "block") and trunk.config.steps > 1:
        return trunk.config.steps * hidden_count(trunk.config.grid**2, ratio)
    return hidden_count(trunk.config.patches, ratio)


def _fill_pictures(
    predictor: Predictor, batch: Sequence[tuple[Operation, Item]]
) -> list[ItemOutput]:
    specs = [one.mask for one, _ in batch if isinstance(one, FillImage | FillClip)]
    pictures = [item.arrays[0] for _, item in batch]
    if isinstance(batch[0][0], FillClip):
        hidden = clip_masks(predictor, specs, pictures)
        filled = predictor.fill_clips(pictures, hidden)
    else:
        hidden = image_masks(predictor, specs, pictures)
        texts = [item.text for _, item in batch] if batch[0][1].text else None
        filled = predictor.fill_images(pictures, hidden, texts)
    return [
        ItemOutput((filled.seen[row], filled.filled[row], hidden[row].numpy(), filled.error[row]))
        for row in range(len(batch))
    ]


def _fill_texts(
    predictor: Predictor, batch: Sequence[tuple[Operation, Item]]
) -> list[ItemOutput | Failure]:
    """Fill in what can be masked; the others' failures cost it nothing."""
    read = [_masked_text(predictor, operation, item) for operation, item in batch]
    masked = [one for one in read if not isinstance(one, Failure)]
    filled = iter(_fill_masked_texts(predictor, masked) if masked else ())
    return [one if isinstance(one, Failure) else next(filled) for one in read]


@dataclass(frozen=True, slots=True)
class _MaskedText:
    """A text, and the places in its ids that are hidden."""

    item: Item
    text: EncodedText
    hidden: frozenset[int]
    top_k: int


def _masked_text(predictor: Predictor, operation: Operation, item: Item) -> _MaskedText | Failure:
    if not isinstance(operation, FillText):
        raise TypeError(f"{operation.name} does not belong in a batch of {FillText.name}")
    text = predictor.encode(item.text)
    try:
        hidden = token_mask(predictor, operation.mask, text)
    except Failure as failure:
        return failure
    return _MaskedText(item, text, hidden, operation.top_k)


def _fill_masked_texts(predictor: Predictor, batch: Sequence[_MaskedText]) -> list[ItemOutput]:
    tokenizer = predictor.bundle.tokenizer
    if tokenizer is None or tokenizer.mask_id is None:
        raise Failure(
            errors_pb2.ERROR_REASON_CAPABILITY_MISSING, "this model's tokenizer has no [MASK]"
        )
    ids = [
        [tokenizer.mask_id if place in one.hidden else i for place, i in enumerate(one.text.ids)]
        for one in batch
    ]
    images = [one.item.arrays[0] for one in batch] if batch[0].item.arrays else None
    probabilities = predictor.fill_texts(ids, images).probabilities
    outputs = []
    for row, one in enumerate(batch):
        text, places = one.text, one.hidden
        tokens, best = [], list(text.ids)
        for place in text.content:
            token = tokenizer.token(text.ids[place])
            if place not in places:
                tokens.append(FilledToken(token, hidden=False))
                continue
            spread = probabilities[row, place]
            # Only what the tokenizer can write, best first; ties go to the lower id.
            order = np.argsort(-spread[: tokenizer.vocabulary_size], kind="stable")[: one.top_k]
            best[place] = int(order[0])
            candidates = tuple((tokenizer.token(int(i)), float(spread[i])) for i in order)
            known = text.ids[place] != tokenizer.mask_id
            error = float(-np.log(max(spread[text.ids[place]], 1e-30))) if known else None
            tokens.append(FilledToken(token, True, candidates, error))
        outputs.append(ItemOutput(tokens=tuple(tokens), text=tokenizer.decode(best)))
    return outputs


def _fill_actions(
    predictor: Predictor, batch: Sequence[tuple[Operation, Item]]
) -> list[ItemOutput]:
    first = batch[0][0]
    scaling = predictor.config.actions
    if not isinstance(first, FillActions) or scaling is None:
        raise Failure(
            errors_pb2.ERROR_REASON_CAPABILITY_MISSING, "this model reconstructs no actions"
        )
    given = np.stack([item.arrays[0] for _, item in batch])
    hidden = torch.stack(
        [
            step_mask(predictor, operation.mask, given.shape[1])
            for operation, _ in batch
            if isinstance(operation, FillActions)
        ]
    )
    states = np.stack([item.arrays[1] for _, item in batch]) if first.has_state else None
    images = [item.arrays[-1] for _, item in batch] if first.has_image else None
    texts = [item.text for _, item in batch] if batch[0][1].text else None
    filled = predictor.fill_actions(given, hidden, images, texts, states)
    deviation = np.array(scaling.standard_deviation, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # told to its caller, as all that is
        error = (((filled - given) / deviation) ** 2).mean(axis=-1)
    error[~hidden.numpy()] = np.nan
    return [ItemOutput((filled[row], hidden[row].numpy(), error[row])) for row in range(len(batch))]


def _latent_actions(
    predictor: Predictor, operation: LatentActions, items: Sequence[Item]
) -> list[ItemOutput]:
    found = predictor.latent_actions(
        [item.arrays[0] for item in items],
        [item.arrays[1] for item in items],
        operation.decode_actions,
        operation.predict_frame,
    )
    return [
        ItemOutput(
            (
                found.vectors[row],
                empty(np.int64) if found.codes is None else found.codes[row],
                empty() if found.actions is None else found.actions[row],
                empty(np.uint8) if found.frames is None else found.frames[row],
            )
        )
        for row in range(len(items))
    ]


def _rollouts(predictor: Predictor, operation: Rollout, items: Sequence[Item]) -> list[ItemOutput]:
    given = [np.stack(arrays) for arrays in zip(*(item.arrays for item in items), strict=True)]
    past, actions = given[1:3] if operation.has_actions else (None, None)
    found = predictor.rollout(
        RolloutRequest(
            given[0],
            operation.frames,
            past,
            actions,
            given[-1] if operation.has_goal else None,
            operation.decode_frames,
        )
    )
    return [
        ItemOutput(
            (
                found.latents[row],  # whatever is asked for, they say whether it is numbers
                empty() if found.distances is None else found.distances[row],
                empty(np.uint8) if found.frames is None else found.frames[row],
            )
        )
        for row in range(len(items))
    ]
