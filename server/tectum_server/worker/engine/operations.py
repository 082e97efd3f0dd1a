"""What each operation means to the predictor: which items share a batch, and how a batch runs.

One function an operation, all of one shape: a predictor and items in, an output for
each item. Knows no queues and no wire.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from tectum.v1 import errors_pb2
from tectum_core.masks import hidden_count
from tectum_core.model.vision import VisionTransformer
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.masking import clip_mask, image_mask, step_mask, token_mask
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
    empty,
)

__all__ = ["batch_key", "run_batch"]


def batch_key(model: str, operation: Operation, item: Item, predictor: Predictor) -> Hashable:
    """Items with equal keys may run together: same model, same operation, same shapes inside.

    Raises:
        Failure: CAPABILITY_MISSING, the model has no such part.
    """
    key: tuple[Hashable, ...] = (model, operation.name)
    match operation:
        case EmbedImages() | EmbedClips():
            return (*key, operation.vector)
        case EmbedTexts():
            return key
        case FillImage():
            return (*key, _hidden(predictor.model.vision, operation, predictor), bool(item.text))
        case FillClip():
            video = predictor.model.video
            if video is None:
                raise Failure(
                    errors_pb2.ERROR_REASON_CAPABILITY_MISSING, "this model has no video path"
                )
            return (*key, _hidden(video, operation, predictor))
        case FillText():
            return (*key, bool(item.arrays), operation.top_k)
        case FillActions():
            flags = (operation.has_state, operation.has_image, bool(item.text))
            return (*key, *flags, item.arrays[0].shape[0])
        case LatentActions():
            return (*key, operation.decode_actions, operation.predict_frame)


def run_batch(predictor: Predictor, batch: Sequence[tuple[Operation, Item]]) -> list[ItemOutput]:
    """Run items of equal keys together; one output each, in order.

    Raises:
        Failure: an item cannot be computed; the caller finds out which by running them alone.
    """
    items = [item for _, item in batch]
    match batch[0][0]:
        case EmbedImages(vector=vector):
            rows = predictor.embed_images([item.arrays[0] for item in items], vector)
            return [ItemOutput((row,)) for row in rows]
        case EmbedClips(vector=vector):
            rows = predictor.embed_clips([item.arrays[0] for item in items], vector)
            return [ItemOutput((row,)) for row in rows]
        case EmbedTexts():
            texts = [predictor.encode(item.text) for item in items]
            return [
                ItemOutput((row, np.array([len(text.ids), text.cut], np.int64)))
                for row, text in zip(predictor.embed_encoded(texts), texts, strict=True)
            ]
        case FillImage() | FillClip():
            return _fill_pictures(predictor, batch)
        case FillText():
            return _fill_texts(predictor, batch)
        case FillActions():
            return _fill_actions(predictor, batch)
        case LatentActions() as operation:
            return _latent_actions(predictor, operation, items)


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
    masks: list[Tensor] = []
    for operation, item in batch:
        if isinstance(operation, FillImage):
            masks.append(image_mask(predictor, operation.mask, item.arrays[0]))
        elif isinstance(operation, FillClip):
            masks.append(clip_mask(predictor, operation.mask, item.arrays[0]))
    hidden = torch.stack(masks)
    pictures = [item.arrays[0] for _, item in batch]
    if isinstance(batch[0][0], FillClip):
        filled = predictor.fill_clips(pictures, hidden)
    else:
        texts = [item.text for _, item in batch] if batch[0][1].text else None
        filled = predictor.fill_images(pictures, hidden, texts)
    return [
        ItemOutput((filled.seen[row], filled.filled[row], hidden[row].numpy(), filled.error[row]))
        for row in range(len(batch))
    ]


def _fill_texts(predictor: Predictor, batch: Sequence[tuple[Operation, Item]]) -> list[ItemOutput]:
    tokenizer = predictor.bundle.tokenizer
    if tokenizer is None or tokenizer.mask_id is None:
        raise Failure(
            errors_pb2.ERROR_REASON_CAPABILITY_MISSING, "this model's tokenizer has no [MASK]"
        )
    encoded = [predictor.encode(item.text) for _, item in batch]
    hidden = [
        token_mask(predictor, operation.mask, text)
        for (operation, _), text in zip(batch, encoded, strict=True)
        if isinstance(operation, FillText)
    ]
    masked = [
        [tokenizer.mask_id if place in places else token for place, token in enumerate(text.ids)]
        for text, places in zip(encoded, hidden, strict=True)
    ]
    images = [item.arrays[0] for _, item in batch] if batch[0][1].arrays else None
    probabilities = predictor.fill_texts(masked, images).probabilities
    outputs = []
    for row, ((operation, _), text, places) in enumerate(zip(batch, encoded, hidden, strict=True)):
        top_k = operation.top_k if isinstance(operation, FillText) else 0
        tokens, best = [], list(text.ids)
        for place in text.content:
            token = tokenizer.token(text.ids[place])
            if place not in places:
                tokens.append(FilledToken(token, hidden=False))
                continue
            spread = probabilities[row, place]
            # Only what the tokenizer can write, best first; ties go to the lower id.
            order = np.argsort(-spread[: tokenizer.vocabulary_size], kind="stable")[:top_k]
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
