"""ComputeSimilarity: embed what is not yet a vector, then cosines, logits, softmaxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tectum.v1 import embed_pb2, errors_pb2, image_pb2, model_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call, item_failure
from tectum_server.worker.front.calls import Calls
from tectum_server.worker.front.images import ImageReader
from tectum_server.worker.front.messages.wire import read_embedding, tensor
from tectum_server.worker.front.methods.batches import raise_if_all_failed, run_items, together
from tectum_server.worker.front.methods.texts import checked_text
from tectum_server.worker.front.status import item_error
from tectum_server.worker.jobs import EmbedImages, EmbedTexts, Item, ItemFailure, ItemOutput

__all__ = ["compare"]

Vector = NDArray[np.float32]


async def compare(
    request: embed_pb2.ComputeSimilarityRequest, call: Call, calls: Calls, images: ImageReader
) -> embed_pb2.ComputeSimilarityResponse:
    """Answer the request.

    Raises:
        Failure: the request as a whole cannot be answered.
    """
    call.served.require(model_pb2.CAPABILITY_EMBED_TEXTS)
    call.answer_in("joint")
    for side, given in (("left", request.left), ("right", request.right)):
        if not given:
            raise Failure(errors_pb2.ERROR_REASON_FIELD_MISSING, "at least one is needed", side)
    split = len(request.left)
    calls.check_count(split + len(request.right), "left")
    pictures = sum(item.HasField("image") for item in (*request.left, *request.right))
    asks = {EmbedImages.name: pictures} if pictures else {}
    with calls.admit_items(split + len(request.right), "left", call, asks):
        fields = [f"left[{index}]" for index in range(split)]
        fields += [f"right[{index}]" for index in range(len(request.right))]
        items = [*request.left, *request.right]
        truncated: list[int] = []
        vectors = await _vectors(items, fields, call, calls, images, truncated)
    _raise_if_a_side_failed(vectors[:split], vectors[split:])
    space = call.served.describe("joint")
    left, right = (_stack(side, space.dimensions) for side in (vectors[:split], vectors[split:]))
    cosine = np.clip(left @ right.T, -1, 1)
    logits = cosine * call.served.entry.logit_scale + call.served.entry.logit_bias
    return embed_pb2.ComputeSimilarityResponse(
        info=call.info(),
        cosine=tensor(cosine),
        logits=tensor(logits.astype(np.float32)),
        right_given_left=tensor(_softmax(logits, axis=1)),
        left_given_right=tensor(_softmax(logits, axis=0)),
        space_id=space.space_id,
        errors=[
            embed_pb2.SimilarityError(
                side=embed_pb2.SIDE_LEFT if index < split else embed_pb2.SIDE_RIGHT,
                index=index if index < split else index - split,
                error=item_error(vector, fields[index]),
            )
            for index, vector in enumerate(vectors)
            if isinstance(vector, Failure)
        ],
        truncated=[fields[index] for index in truncated],
    )


async def _vectors(
    items: Sequence[embed_pb2.SimilarityItem],
    fields: Sequence[str],
    call: Call,
    calls: Calls,
    images: ImageReader,
    truncated: list[int],
) -> list[Vector | Failure]:
    """Every item's joint vector, or why it has none; images and texts are computed side by side.

    `truncated` takes the places of texts that were too long for the model.
    """
    vectors: list[Vector | Failure | None] = [None] * len(items)
    given: dict[str, image_pb2.Image] = {}
    places: list[int] = []
    texts: dict[int, Item] = {}
    space = call.served.describe("joint")
    for index, (item, field) in enumerate(zip(items, fields, strict=True)):
        try:
            match item.WhichOneof("item"):
                case "image":
                    given[f"{field}.image"] = item.image
                    places.append(index)
                case "text":
                    limit = calls.settings.max_text_bytes
                    texts[index] = Item(text=checked_text(item.text, limit, f"{field}.text"))
                case "embedding":
                    vectors[index] = read_embedding(
                        item.embedding, space.space_id, space.dimensions, f"{field}.embedding"
                    )
                case _:
                    vectors[index] = Failure(
                        errors_pb2.ERROR_REASON_FIELD_MISSING,
                        "image, text or embedding must be set",
                        field,
                    )
        except Failure as failure:
            vectors[index] = failure
    pictures: dict[int, Item] = {}
    for index, pixels in zip(places, await images.read_all(given, call), strict=True):
        if isinstance(pixels, Failure):
            vectors[index] = pixels
        else:
            pictures[index] = Item((pixels,))

    async def fill(operation: EmbedImages | EmbedTexts, group: dict[int, Item]) -> None:
        outputs = await run_items(calls, call, operation, list(group.values()))
        for index, output in zip(group, outputs, strict=True):
            vectors[index] = (
                item_failure(output, fields[index])
                if isinstance(output, ItemFailure)
                else output.arrays[0]
            )

            if isinstance(output, ItemOutput) and len(output.arrays) > 1 and output.arrays[1][1]:
                truncated.append(index)

    await together(fill(EmbedImages("joint"), pictures), fill(EmbedTexts(), texts))
    return [vector for vector in vectors if vector is not None]


def _raise_if_a_side_failed(
    left: Sequence[Vector | Failure], right: Sequence[Vector | Failure]
) -> None:
    """A request with nothing left to compare on one side fails as a whole, naming every field.

    Raises:
        Failure: that side's first, with all violations of both.
    """
    for side, other in ((left, right), (right, left)):
        failures = [one for one in side if isinstance(one, Failure)]
        if len(failures) == len(side):
            failures += [one for one in other if isinstance(one, Failure)]
            raise_if_all_failed(failures, len(failures))


def _stack(vectors: Sequence[Vector | Failure], width: int) -> Vector:
    """float32[n, D]; a failed item's row is NaN."""
    rows = [np.full(width, np.nan, np.float32) if isinstance(v, Failure) else v for v in vectors]
    return np.stack(rows)


def _softmax(logits: NDArray[np.floating], axis: int) -> NDArray[np.float32]:
    """Over finite entries; NaN stays NaN, and takes no part."""
    shown = np.where(np.isnan(logits), -np.inf, logits)
    highest = shown.max(axis=axis, keepdims=True)
    # A row whose every entry failed has no maximum to subtract.
    weights = np.exp(shown - np.where(np.isfinite(highest), highest, 0.0))
    with np.errstate(invalid="ignore"):
        spread = weights / weights.sum(axis=axis, keepdims=True)
    return np.where(np.isnan(logits), np.nan, spread).astype(np.float32)
