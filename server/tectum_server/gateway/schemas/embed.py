"""Pictures, texts and clips to vectors."""

from typing import Annotated

from pydantic import Field

import tectum
from tectum_server.gateway import codec
from tectum_server.gateway.codec import EncodingFormat, Picture
from tectum_server.gateway.schemas.common import (
    Answered,
    Embedding,
    Info,
    ItemError,
    Items,
    Strict,
    Text,
    TextVectorOptions,
    VectorOptions,
)


class EmbedImages(VectorOptions):
    """Pictures to turn into vectors."""

    images: Items[Picture]
    """Base64 of JPEG, PNG or WebP files; as many as the model's `limits.max_items` (GET
    /v1/models), 64 unless the operator said otherwise."""


class EmbedTexts(TextVectorOptions):
    """Texts to turn into vectors in the space shared with images."""

    texts: Items[Text]
    """None empty; as many as the model's `limits.max_items` (GET /v1/models), 64 unless the
    operator said otherwise."""


class Clip(Strict):
    """A short video: frames at a constant interval."""

    frames: Items[Picture]
    """Oldest first; as many as the model's input says."""


class EmbedClips(VectorOptions):
    """Clips to turn into vectors."""

    clips: Items[Clip]
    """As many as the model's `limits.max_items` (GET /v1/models), 64 unless the operator
    said otherwise; all their frames count."""
    frame_interval_ms: Annotated[float, Field(gt=0)] | None = None
    """Time between frames. Absent: the model's own is asserted."""


class EmbedResult(Answered):
    """One item's answer: exactly one is there."""

    embedding: Embedding | None = None
    """The item's vector."""
    error: ItemError | None = None
    """Why this item has none."""


class EmbedAnswer(Answered):
    """The items' vectors."""

    info: Info
    """How the answer was made."""
    results: list[EmbedResult]
    """One for each item, in order."""

    @classmethod
    def of(cls, batch: tectum.EmbeddingBatch, encoding: EncodingFormat) -> "EmbedAnswer":
        """Read the SDK's; InvalidInput where there are too many numbers to list."""
        vectors = (item.values for item in batch if isinstance(item, tectum.Embedding))
        codec.check_listed(vectors, encoding)
        results = [
            EmbedResult(error=ItemError.of(item))
            if isinstance(item, tectum.ItemError)
            else EmbedResult(embedding=Embedding.of(item, encoding))
            for item in batch
        ]
        return cls(info=Info.of(batch.info), results=results)
